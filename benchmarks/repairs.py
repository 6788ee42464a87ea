"""Trainings that repair what a technique did: each done once, however many rows begin with it."""

import atexit
import hashlib
import json
import logging
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.baseline import Baseline, weights_fingerprint
from benchmarks.baseline.cache import lock, read_state, write_state
from benchmarks.baseline.data import fingerprint_of
from benchmarks.baseline.fingerprints import repair_fingerprint
from benchmarks.baseline.resume import Keeper, read_resume
from benchmarks.calibration import calibration
from compression.errors import CompressionError
from compression.integer import deploy
from compression.layers import copy_model
from compression.paths import cache_folder
from compression.pruning import fine_tune
from compression.quantization import quantize_static
from compression.training import Recipe, Split, has_bfloat16

log = logging.getLogger(__name__)

LONG_IMAGES = 50_000
"""In all epochs: a training of more is kept for the next run too, and goes on where it was killed."""


def repaired(
    b: Baseline, model: nn.Module, images: Split, recipe: Recipe, *, taught: bool = False
) -> nn.Module:
    """Return a fine-tuned copy of `model`, zeros kept, trained now or taken from an earlier training.

    The baseline teaches where it is asked to. What counts is the network, the images, the recipe, the
    baseline and what the code of the training does; the number of threads does not, since a long
    training gets the cores that are free.
    """
    path = _place(b, model, images, recipe, taught)
    with lock(path):
        kept = read_state(path)
        if kept is None:
            return _train_into(path, model, images, recipe, _teacher(b) if taught else None)
    if b.on_reuse is not None:
        b.on_reuse(kept["seconds"])
    tuned = copy_model(model)
    tuned.load_state_dict(kept["weights"])
    return tuned.eval()


def _train_into(
    path: Path, model: nn.Module, images: Split, recipe: Recipe, teacher: nn.Module | None
) -> nn.Module:
    resume = path.with_suffix(".resume")
    state = read_resume(resume, log.info)
    clock = _Clock(0.0 if state is None else state["seconds"])
    keeper = Keeper(resume, f"repair {path.stem}", log.info)
    tuned = fine_tune(
        model,
        images,
        recipe,
        teacher=teacher,
        on_epoch=lambda epoch: keeper.keep(replace(epoch, state=clock.noted(epoch.state))),
        resume_from=state,
    )
    weights = {name: tensor.detach().cpu() for name, tensor in tuned.state_dict().items()}
    write_state(path, {"weights": weights, "seconds": clock.seconds()})
    resume.unlink(missing_ok=True)
    return tuned


class _Clock:
    """Seconds of a training, those before it was killed included."""

    def __init__(self, before_s: float) -> None:
        self.started = time.perf_counter() - before_s

    def seconds(self) -> float:
        return time.perf_counter() - self.started

    def noted(self, state: Callable[[], dict[str, Any]]) -> Callable[[], dict[str, Any]]:
        return lambda: {**state(), "seconds": self.seconds()}


def _place(b: Baseline, model: nn.Module, images: Split, recipe: Recipe, taught: bool) -> Path:
    """Return where a training is kept: for this process, or, a long one, for the next ones too."""
    teacher = b.model if taught else None
    parts = [
        weights_fingerprint(model),
        weights_fingerprint(teacher) if teacher is not None else "",
        json.dumps(asdict(recipe), sort_keys=True),
        fingerprint_of(images),
        b.device.type,
    ]
    long = len(images) * recipe.epochs >= LONG_IMAGES
    if long:
        on_cpu = None if teacher is None else copy_model(teacher).cpu()
        repair = partial(fine_tune, copy_model(model).cpu(), teacher=on_cpu)
        precision = recipe.precision if has_bfloat16(b.device) else "float32"
        parts += [repair_fingerprint(images, recipe, repair), precision, torch.__version__]
    name = hashlib.sha256("|".join(parts).encode()).hexdigest()[:16]
    folder = cache_folder() / "repairs" if long else _session_folder()
    return folder / f"{b.workload.name}-{name}.pt"


@cache
def _session_folder() -> Path:
    folder = tempfile.TemporaryDirectory(prefix="compression-repairs-")
    atexit.register(folder.cleanup)
    return Path(folder.name)


def _teacher(b: Baseline) -> nn.Module:
    """Return the baseline, or its INT8 copy where kernels run it: faster, and as good a teacher."""
    try:
        quantized = quantize_static(b.model, calibration(b))
    except CompressionError:  # an operator that stays in float
        return b.model
    deployed = deploy(quantized, next(calibration(b)))
    return b.model if deployed is quantized else deployed
