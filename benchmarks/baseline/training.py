"""The trained baseline: trained once, cached under the hash of its recipe, loaded with weights only."""

import copy
import hashlib
import io
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.baseline.cache import (
    holds_weights,
    lock,
    read_checked,
    write_checked,
    write_weights,
)
from benchmarks.baseline.checks import with_fitting_sizes
from benchmarks.baseline.data import Data
from benchmarks.baseline.fingerprints import training_fingerprint
from benchmarks.baseline.progress import Progress
from benchmarks.baseline.workload import Workload, name_of
from compression.errors import CheckpointError, CompressionError
from compression.paths import cache_folder
from compression.training import (
    EpochReport,
    Recipe,
    Split,
    correct_images,
    feed_of,
    fit,
    has_bfloat16,
)

log = logging.getLogger(__name__)

RESUME_EVERY_S = 20.0  # of training, at most an epoch more: what a kill may cost
PROGRESS_IMAGES = 1_000  # of the validation images: an epoch's line need not cost a test


@dataclass(frozen=True, slots=True)
class Baseline:
    """The trained network in eval mode, and its data on the same device.

    `on_epoch` watches the training of a technique that trains.
    """

    model: nn.Module
    data: Data
    workload: Workload
    device: torch.device
    on_epoch: Callable[[EpochReport], None] | None = None


def cache_path(workload: Workload, data: Data, device: torch.device) -> Path:
    """Return where the baseline of this recipe, code, data, torch and kind of device is cached."""
    recipe = workload.recipe_on(device)
    parts = [
        workload.recipe_fingerprint(device),
        training_fingerprint(workload, data, recipe),
        data.fingerprint(),
        device.type,
        recipe.precision if has_bfloat16(device) else "float32",
        torch.__version__,
    ]
    if device.type == "cpu":  # whose sums depend on them; xdist's workers on GPUs share one place
        parts.append(str(torch.get_num_threads()))
    name = hashlib.sha256("|".join(parts).encode()).hexdigest()[:16]
    return cache_folder() / "baselines" / f"{workload.name}-{name}.safetensors"


def trainable_workload(
    workload: Workload, data: Data, device: torch.device, report: Callable[[str], None] = log.info
) -> Workload:
    """Return the workload as it can be trained here.

    That is without coarse sizes that its network cannot take, and without pretrained weights that
    cannot be had; `report` is told.
    """
    workload = with_fitting_sizes(workload, data, device, report)
    if holds_weights(cache_path(workload, data, device)):
        return workload
    return with_start(workload, device, report)


def with_start(
    workload: Workload, device: torch.device, report: Callable[[str], None] = log.info
) -> Workload:
    """Return the workload with its pretrained weights read, or without where they cannot be had.

    A baseline from random weights is another recipe, with a fingerprint and a place of its own.
    """
    if workload.pretrained is None:
        return workload
    try:
        start = _start(workload, device)
    except (OSError, RuntimeError) as error:  # unreachable; or a download that is damaged
        report(
            f"{workload.name} baseline: pretrained weights cannot be had ({error}); it starts from "
            "random weights"
        )
        return replace(workload, pretrained=None)
    again = partial(copy.deepcopy, start)  # a copy, since training works in place
    again.__qualname__ = name_of(workload.pretrained)  # type: ignore[attr-defined]
    return replace(workload, pretrained=again)


def obtain_baseline(
    workload: Workload,
    data: Data,
    device: torch.device,
    *,
    load: Callable[[Path, Callable[[], nn.Module]], nn.Module],
    report: Callable[[str], None] = log.info,
) -> nn.Module:
    """Return the workload's trained network, from the cache or by training it now.

    Safe under several processes (one trains, the others wait) and under kill -9 (the next run goes
    on behind the last finished epoch). What is cached is checked bit by bit: a damaged file is made
    again, an intact one needs no folder that can be written. `report` receives a line an epoch with
    the time left.
    """
    path = cache_path(workload, data, device)
    if not holds_weights(path):
        with lock(path):
            if not holds_weights(path):
                _train_into(path, workload, data, device, report)
    try:
        return load(path, workload.network).to(device).eval()
    except CheckpointError as error:
        raise CheckpointError(f"{error}; delete the file to train it again") from error


def _train_into(
    path: Path,
    workload: Workload,
    data: Data,
    device: torch.device,
    report: Callable[[str], None],
) -> None:
    if path.exists():
        report(
            f"{path}: damaged, its checksum is not that of its bytes; the baseline is made again"
        )
    resume = path.with_suffix(".resume")
    weights = train(workload, data, device, resume=resume, report=report).state_dict()
    try:
        write_weights(path, weights)
    except CheckpointError:  # a full disk: the resume file is larger, and not needed any more
        if not resume.exists():
            raise
        resume.unlink()
        write_weights(path, weights)
    resume.unlink(missing_ok=True)


def keep_baseline(model: nn.Module, workload: Workload, data: Data, device: torch.device) -> Path:
    """Cache weights that `train` gave, unless there are some; return their place."""
    path = cache_path(workload, data, device)
    with lock(path):
        if not holds_weights(path):
            write_weights(path, model.state_dict())
    return path


def train(
    workload: Workload,
    data: Data,
    device: torch.device,
    *,
    resume: Path | None = None,
    on_epoch: Callable[[EpochReport], None] | None = None,
    report: Callable[[str], None] = log.info,
) -> nn.Module:
    """Return the workload's network, trained on `device` with the images there.

    A training of more than seconds writes `resume`, where it is given, and goes on from it; where it
    cannot be written, `report` is told once and the training goes on.
    """
    recipe, title = workload.recipe_on(device), f"{workload.name} baseline"
    images, validation = (s.to(device) for s in (data.train, data.validation))
    state = None if resume is None else _read_resume(resume, report)
    model = _start(workload if state is None else replace(workload, pretrained=None), device)
    model = _lay_out(model.to(device), images, recipe)
    first = 0 if state is None else int(state["epoch"]) + 1
    progress = Progress(title, recipe, images, first, report)
    unsaved_s, unwritable = 0.0, False

    def told(epoch: EpochReport) -> None:
        nonlocal unsaved_s, unwritable
        progress.steps = (epoch.epoch + 1 - first) * progress.steps_per_epoch  # joined ones too
        correct = correct_images(model, validation.take(PROGRESS_IMAGES))
        progress.say(
            f"epoch {epoch.epoch + 1}/{epoch.epochs}, loss {epoch.mean_loss:.3f}, "
            f"validation {correct.float().mean():.2%}, {epoch.seconds:.1f} s an epoch"
        )
        unsaved_s += epoch.seconds
        if resume is not None and unsaved_s > RESUME_EVERY_S:
            lost = _write_resume(resume, epoch)
            if lost and not unwritable:
                report(f"{title}: {lost}; training goes on, and a kill would cost all of it")
            unsaved_s, unwritable = 0.0, unwritable or bool(lost)
        if on_epoch is not None:
            on_epoch(epoch)

    report(f"{title}: training {recipe.epochs} epochs of {len(images)} images")
    fit(model, images, recipe, after_step=progress.on_step, on_epoch=told, resume_from=state)
    return model


def _lay_out(model: nn.Module, images: Split, recipe: Recipe) -> nn.Module:
    """Return `model` with its images' weights channels last, where it trains so."""
    tensors = [t for t in [*model.parameters(), *model.buffers()] if t.ndim == 4]

    def lay(memory_format: torch.memory_format) -> None:
        for tensor in tensors:
            tensor.data = tensor.data.contiguous(memory_format=memory_format)

    lay(torch.channels_last)
    try:
        fits = feed_of(model, images, recipe).memory_format is torch.channels_last
    except CompressionError:  # as it may without
        fits = False
    if not fits:
        lay(torch.contiguous_format)
    return model


def _start(workload: Workload, device: torch.device) -> nn.Module:
    torch.manual_seed(workload.recipe_on(device).seed)
    return (workload.pretrained or workload.network)()


def _read_resume(path: Path, report: Callable[[str], None]) -> dict[str, Any] | None:
    if not path.exists():
        return None
    data = read_checked(path)
    if data is None:
        report(f"{path}: damaged, its checksum is not that of its bytes; training from the start")
        return None
    state: dict[str, Any] = torch.load(io.BytesIO(data), weights_only=True, map_location="cpu")
    report(f"training goes on behind epoch {state['epoch'] + 1} ({path})")
    return state


def _write_resume(path: Path, epoch: EpochReport) -> str:
    """Write what training goes on with; return why it cannot be written."""
    buffer = io.BytesIO()
    torch.save(epoch.state(), buffer)
    try:
        write_checked(path, buffer.getvalue())
    except (CheckpointError, OSError) as error:
        return str(error)
    return ""
