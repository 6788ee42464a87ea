"""The trained baseline: trained once, cached under the hash of its recipe, loaded with weights only."""

import copy
import hashlib
import io
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import wraps
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from safetensors.torch import save as to_bytes
from torch import nn

from benchmarks.data import Data
from benchmarks.harness.progress import Progress
from benchmarks.workloads import Workload
from compression.atomic import write_atomically
from compression.errors import CheckpointError, CompressionError
from compression.paths import cache_folder
from compression.training import EpochReport, correct_images, fit, has_bfloat16

log = logging.getLogger(__name__)

LOCK_TIMEOUT_S = 12 * 3600
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


def weights_fingerprint(model: nn.Module) -> str:
    """Hash a network's state dict (SHA-256, 16 hex digits)."""
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]


def cache_path(workload: Workload, data: Data, device: torch.device) -> Path:
    """Return where the baseline of this recipe, data, torch and kind of device is cached."""
    recipe = workload.recipe_on(device)
    parts = [
        workload.recipe_fingerprint(device),
        data.fingerprint(),
        device.type,
        recipe.precision if has_bfloat16(device) else "float32",
        torch.__version__,
    ]
    if device.type == "cpu":  # whose sums depend on them; xdist's workers on GPUs share one place
        parts.append(str(torch.get_num_threads()))
    name = hashlib.sha256("|".join(parts).encode()).hexdigest()[:16]
    return cache_folder() / "baselines" / f"{workload.name}-{name}.safetensors"


def trainable(
    workload: Workload, data: Data, device: torch.device, report: Callable[[str], None] = log.info
) -> Workload:
    """Return the workload as it can be trained here: without pretrained weights that cannot be had."""
    if cache_path(workload, data, device).exists():
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
    # Its name is part of the fingerprint; a copy, since training works in place.
    return replace(workload, pretrained=wraps(workload.pretrained)(lambda: copy.deepcopy(start)))


def trained_baseline(
    workload: Workload,
    data: Data,
    device: torch.device,
    *,
    load: Callable[[Path, Callable[[], nn.Module]], nn.Module],
    report: Callable[[str], None] = log.info,
) -> nn.Module:
    """Return the workload's trained network, from the cache or by training it now.

    Safe under several processes (one trains, the others wait) and under kill -9 (the next run goes
    on behind the last finished epoch). `report` receives a line an epoch with the time left.
    """
    path = cache_path(workload, data, device)
    with _locked(path):
        if not path.exists():
            resume = path.with_suffix(".resume")
            model = train(workload, data, device, resume=resume, report=report)
            write_atomically(path, to_bytes(_plain(model)))
            resume.unlink(missing_ok=True)
    try:
        return load(path, workload.network).to(device).eval()
    except CheckpointError as error:
        raise CheckpointError(f"{error}; delete the file to train it again") from error


def keep_baseline(model: nn.Module, workload: Workload, data: Data, device: torch.device) -> Path:
    """Cache weights that `train` gave, unless there are some; return their place."""
    path = cache_path(workload, data, device)
    with _locked(path):
        if not path.exists():
            write_atomically(path, to_bytes(_plain(model)))
    return path


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{path}.lock", timeout=LOCK_TIMEOUT_S):
            yield
    except Timeout as error:
        raise CompressionError(
            f"{path}.lock: another process has trained this baseline for over "
            f"{LOCK_TIMEOUT_S // 3600} hours; end it, or delete the lock file"
        ) from error
    except OSError as error:
        raise CompressionError(
            f"{path.parent}: the baseline cannot be cached ({error.strerror or error}); set "
            "XDG_CACHE_HOME to a folder that can be written"
        ) from error


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

    A training of more than seconds writes `resume`, where it is given, and goes on from it.
    """
    recipe, title = workload.recipe_on(device), f"{workload.name} baseline"
    images, validation = (s.to(device) for s in (data.train, data.validation))
    state = None if resume is None else _read_resume(resume, report)
    model = _start(workload if state is None else replace(workload, pretrained=None), device)
    model = model.to(device).to(memory_format=torch.channels_last)
    first = 0 if state is None else int(state["epoch"]) + 1
    progress = Progress(title, recipe, images, first, report)
    unsaved_s = 0.0

    def told(epoch: EpochReport) -> None:
        nonlocal unsaved_s
        correct = correct_images(model, validation.take(PROGRESS_IMAGES))
        progress.say(
            f"epoch {epoch.epoch + 1}/{epoch.epochs}, loss {epoch.mean_loss:.3f}, "
            f"validation {correct.float().mean():.2%}, {epoch.seconds:.1f} s an epoch"
        )
        unsaved_s += epoch.seconds
        if resume is not None and unsaved_s > RESUME_EVERY_S:
            _write_resume(resume, epoch)
            unsaved_s = 0.0
        if on_epoch is not None:
            on_epoch(epoch)

    report(f"{title}: training {recipe.epochs} epochs of {len(images)} images")
    fit(model, images, recipe, after_step=progress.on_step, on_epoch=told, resume_from=state)
    return model


def _start(workload: Workload, device: torch.device) -> nn.Module:
    torch.manual_seed(workload.recipe_on(device).seed)
    return (workload.pretrained or workload.network)()


@torch.no_grad()
def check_outputs(workload: Workload, data: Data) -> None:
    """Refuse, before any training, a network that cannot take the images or has too few outputs."""
    labels = torch.cat([s.labels.cpu() for s in (data.train, data.validation, data.test)])
    lowest, highest = int(labels.min()), int(labels.max())
    image = data.validation.inputs(slice(0, 1)).cpu()
    for name, factory in (("network", workload.network), ("student", workload.student)):
        try:
            logits = factory().eval()(image)
        except RuntimeError as error:
            raise CompressionError(
                f"workload {workload.name}: its {name} cannot take an input of shape "
                f"{tuple(image.shape)} ({error})"
            ) from error
        if lowest < 0 or highest >= logits.shape[-1]:
            raise CompressionError(
                f"workload {workload.name}: its {name} has {logits.shape[-1]} outputs, expected "
                f"labels from 0 to {logits.shape[-1] - 1}, found {lowest} to {highest}"
            )


def _read_resume(path: Path, report: Callable[[str], None]) -> dict[str, Any] | None:
    if not path.exists():
        return None
    try:
        state: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:  # a damaged checkpoint costs epochs, never the run
        log.warning("%s: not readable (%s); training from the start", path, error)
        return None
    report(f"training goes on behind epoch {state['epoch'] + 1} ({path})")
    return state


def _write_resume(path: Path, epoch: EpochReport) -> None:
    buffer = io.BytesIO()
    torch.save(epoch.state(), buffer)
    write_atomically(path, buffer.getvalue())


def _plain(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.cpu().contiguous() for name, tensor in model.state_dict().items()}
