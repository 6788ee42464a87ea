"""The trained baseline: trained once, cached under the hash of its recipe, loaded with weights only."""

import hashlib
import io
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from safetensors.torch import save as to_bytes
from torch import nn

from benchmarks.data import Data
from benchmarks.workloads import Workload
from compression.atomic import write_atomically
from compression.errors import CheckpointError, CompressionError
from compression.paths import cache_folder
from compression.training import EpochReport, correct_images, fit, has_bfloat16

log = logging.getLogger(__name__)

LOCK_TIMEOUT_S = 12 * 3600
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
    precision = workload.recipe.precision if has_bfloat16(device) else "float32"
    key = "|".join(
        [
            workload.recipe_fingerprint(),
            data.fingerprint(),
            device.type,
            precision,
            torch.__version__,
            str(torch.get_num_threads()),
        ]
    )
    name = hashlib.sha256(key.encode()).hexdigest()[:16]
    return cache_folder() / "baselines" / f"{workload.name}-{name}.safetensors"


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
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(f"{path}.lock", timeout=LOCK_TIMEOUT_S):
            if not path.exists():
                model = _train(workload, data, device, path.with_suffix(".resume"), report)
                write_atomically(path, to_bytes(_plain(model)))
                path.with_suffix(".resume").unlink(missing_ok=True)
    except Timeout as error:
        raise CompressionError(
            f"{path}.lock: another process has trained this baseline for over "
            f"{LOCK_TIMEOUT_S // 3600} hours; end it, or delete the lock file"
        ) from error
    try:
        return load(path, workload.network).to(device).eval()
    except CheckpointError as error:
        raise CheckpointError(f"{error}; delete the file to train it again") from error


def _train(
    workload: Workload,
    data: Data,
    device: torch.device,
    resume: Path,
    report: Callable[[str], None],
) -> nn.Module:
    recipe = workload.recipe
    state = _read_resume(resume, report)
    torch.manual_seed(recipe.seed)
    start = workload.pretrained if workload.pretrained and state is None else workload.network
    model = _start(start, workload).to(device).to(memory_format=torch.channels_last)
    spent = 0.0
    first = 0 if state is None else int(state["epoch"]) + 1
    work = [recipe.relative_work(e, data.train.images.shape[-1]) for e in range(recipe.epochs)]

    def on_epoch(epoch: EpochReport) -> None:
        nonlocal spent
        spent += epoch.seconds
        done, left = work[first : epoch.epoch + 1], work[epoch.epoch + 1 :]
        left_s = spent / sum(done) * sum(left)
        correct = correct_images(model, data.validation.take(PROGRESS_IMAGES))
        report(
            f"{workload.name} baseline: epoch {epoch.epoch + 1}/{epoch.epochs}, "
            f"loss {epoch.mean_loss:.3f}, validation {correct.float().mean():.2%}, "
            f"{epoch.seconds:.0f} s an epoch, about {left_s / 60:.1f} min left"
        )
        if spent > 20:  # a training of seconds needs no checkpoint
            buffer = io.BytesIO()
            torch.save(epoch.state(), buffer)
            write_atomically(resume, buffer.getvalue())

    report(f"{workload.name} baseline: training {recipe.epochs} epochs of {len(data.train)} images")
    fit(model, data.train, recipe, on_epoch=on_epoch, resume_from=state)
    return model


def _start(network: Callable[[], nn.Module], workload: Workload) -> nn.Module:
    try:
        return network()
    except OSError as error:
        log.warning(
            "%s: pretrained weights cannot be had (%s); training from random weights",
            workload.name,
            error,
        )
        return workload.network()


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


def _plain(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.cpu().contiguous() for name, tensor in model.state_dict().items()}
