"""Training of a baseline: with progress, and with a file from which a killed training goes on."""

import io
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.baseline.cache import read_checked, write_checked
from benchmarks.baseline.data import Data
from benchmarks.baseline.progress import Progress
from benchmarks.baseline.workload import Workload
from compression.errors import CheckpointError, CompressionError
from compression.training import EpochReport, Recipe, Split, correct_images, feed_of, fit

log = logging.getLogger(__name__)

RESUME_EVERY_S = 20.0
"""Of training that a kill may cost, and at most one epoch more."""
PROGRESS_IMAGES = 1_000
"""Validation images per epoch: its line need not cost a test of all."""


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

    A training of more than 20 s writes `resume`, where it is given, and goes on from it. Where it
    cannot be written, that is reported once and the training goes on.
    """
    recipe, title = workload.recipe_on(device), f"{workload.name} baseline"
    images, validation = (s.to(device) for s in (data.train, data.validation))
    state = None if resume is None else _read_resume(resume, report)
    start = workload if state is None else replace(workload, pretrained=None)
    model = _lay_out(start.initial_network(device).to(device), images, recipe)
    first = 0 if state is None else int(state["epoch"]) + 1
    progress = Progress(title, recipe, images, first, report)
    keeper = _Keeper(resume, title, report)

    def after_epoch(epoch: EpochReport) -> None:
        _report_epoch(progress, epoch, model, validation)
        keeper.keep(epoch)
        if on_epoch is not None:
            on_epoch(epoch)

    report(f"{title}: training {recipe.epochs} epochs of {len(images)} images")
    fit(model, images, recipe, after_step=progress.on_step, on_epoch=after_epoch, resume_from=state)
    return model


def _report_epoch(
    progress: Progress, epoch: EpochReport, model: nn.Module, validation: Split
) -> None:
    """Report an epoch's loss, its accuracy on some validation images, and the time left."""
    progress.steps = (
        epoch.epoch + 1 - progress.first
    ) * progress.steps_per_epoch  # joined ones too
    correct = correct_images(model, validation.take(PROGRESS_IMAGES))
    progress.say(
        f"epoch {epoch.epoch + 1}/{epoch.epochs}, loss {epoch.mean_loss:.3f}, "
        f"validation {correct.float().mean():.2%}, {epoch.seconds:.1f} s per epoch"
    )


class _Keeper:
    """Writes the file that a training goes on from, once enough seconds would be lost."""

    def __init__(self, path: Path | None, title: str, report: Callable[[str], None]) -> None:
        self.path, self.title, self.report = path, title, report
        self.unsaved_s, self.unwritable = 0.0, False

    def keep(self, epoch: EpochReport) -> None:
        """Count an epoch, and write it where it is due; report once where it cannot be written."""
        self.unsaved_s += epoch.seconds
        if self.path is None or self.unsaved_s <= RESUME_EVERY_S:
            return
        reason = _write_resume(self.path, epoch)
        if reason and not self.unwritable:
            self.report(
                f"{self.title}: {reason}; training goes on, and a kill would cost all of it"
            )
        self.unsaved_s, self.unwritable = 0.0, self.unwritable or bool(reason)


def _lay_out(model: nn.Module, images: Split, recipe: Recipe) -> nn.Module:
    """Return `model` with its 4-dimensional tensors channels last, where it trains so."""
    tensors = [t for t in [*model.parameters(), *model.buffers()] if t.ndim == 4]

    def lay(memory_format: torch.memory_format) -> None:
        for tensor in tensors:
            tensor.data = tensor.data.contiguous(memory_format=memory_format)

    lay(torch.channels_last)
    try:
        fits = feed_of(model, images, recipe).memory_format is torch.channels_last
    except CompressionError:  # which contiguous weights may avoid
        fits = False
    if not fits:
        lay(torch.contiguous_format)
    return model


def _read_resume(path: Path, report: Callable[[str], None]) -> dict[str, Any] | None:
    if not path.exists():
        return None
    data = read_checked(path)
    if data is None:
        report(f"{path}: damaged, its checksum is not that of its bytes; training from the start")
        return None
    state: dict[str, Any] = torch.load(io.BytesIO(data), weights_only=True, map_location="cpu")
    report(f"training goes on after epoch {state['epoch'] + 1} ({path})")
    return state


def _write_resume(path: Path, epoch: EpochReport) -> str:
    """Write the file that training goes on from; return why it cannot be written."""
    buffer = io.BytesIO()
    torch.save(epoch.state(), buffer)
    try:
        write_checked(path, buffer.getvalue())
    except (CheckpointError, OSError) as error:
        return str(error)
    return ""
