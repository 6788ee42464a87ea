"""The trained baseline: trained once, cached under the hash of its recipe, loaded with weights only."""

import hashlib
import io
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
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
from compression.training import EpochReport, Split, correct_images, fit, has_bfloat16

log = logging.getLogger(__name__)

LOCK_TIMEOUT_S = 12 * 3600
LINE_EVERY_S = 60.0
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


def trainable(
    workload: Workload, data: Data, device: torch.device, report: Callable[[str], None] = log.info
) -> Workload:
    """Return the workload as it can be trained here: without pretrained weights that cannot be had.

    A baseline from random weights is another recipe, with a fingerprint and a place of its own.
    """
    if workload.pretrained is None or cache_path(workload, data, device).exists():
        return workload
    try:
        workload.pretrained()
    except (OSError, RuntimeError) as error:  # unreachable; or a download that is damaged
        report(
            f"{workload.name} baseline: pretrained weights cannot be had ({error}); it starts from "
            "random weights"
        )
        return replace(workload, pretrained=None)
    return workload


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
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
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
    except OSError as error:
        raise CompressionError(
            f"{path.parent}: the baseline cannot be cached ({error.strerror or error}); set "
            "XDG_CACHE_HOME to a folder that can be written"
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
    model = start().to(device).to(memory_format=torch.channels_last)
    spent = 0.0
    first = 0 if state is None else int(state["epoch"]) + 1
    progress = _Progress(workload, data.train, first, report)

    def on_epoch(epoch: EpochReport) -> None:
        nonlocal spent
        spent += epoch.seconds
        correct = correct_images(model, data.validation.take(PROGRESS_IMAGES))
        progress.say(
            f"epoch {epoch.epoch + 1}/{epoch.epochs}, loss {epoch.mean_loss:.3f}, "
            f"validation {correct.float().mean():.2%}, {epoch.seconds:.0f} s an epoch"
        )
        if spent > 20:  # a training of seconds needs no checkpoint
            buffer = io.BytesIO()
            torch.save(epoch.state(), buffer)
            write_atomically(resume, buffer.getvalue())

    report(f"{workload.name} baseline: training {recipe.epochs} epochs of {len(data.train)} images")
    fit(
        model,
        data.train,
        recipe,
        after_step=progress.on_step,
        on_epoch=on_epoch,
        resume_from=state,
    )
    return model


class _Progress:
    """Says the time left: behind each epoch, and every minute of a long one."""

    def __init__(
        self, workload: Workload, train: Split, first: int, report: Callable[[str], None]
    ) -> None:
        recipe, size = workload.recipe, train.images.shape[-1]
        self.title, self.report = f"{workload.name} baseline", report
        self.work = [recipe.relative_work(epoch, size) for epoch in range(first, recipe.epochs)]
        self.first, self.steps = first, 0
        self.steps_per_epoch = math.ceil(len(train) / recipe.batch_size)
        self.started = self.said = time.monotonic()

    def on_step(self) -> None:
        self.steps += 1
        if time.monotonic() - self.said >= LINE_EVERY_S:
            epoch, step = divmod(self.steps - 1, self.steps_per_epoch)
            epochs = self.first + len(self.work)
            self.say(
                f"epoch {self.first + epoch + 1}/{epochs}, step {step + 1}/{self.steps_per_epoch}"
            )

    def say(self, what: str) -> None:
        epoch, step = divmod(self.steps - 1, self.steps_per_epoch)
        done = sum(self.work[:epoch]) + self.work[epoch] * (step + 1) / self.steps_per_epoch
        self.said = time.monotonic()
        left_s = (self.said - self.started) * (sum(self.work) / done - 1)
        self.report(f"{self.title}: {what}, about {left_s / 60:.1f} min left")


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


def _plain(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.cpu().contiguous() for name, tensor in model.state_dict().items()}
