"""Training of a baseline: with progress, and with a file from which a killed training goes on."""

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from benchmarks.baseline.data import Data
from benchmarks.baseline.judged import said, score_of
from benchmarks.baseline.progress import Progress
from benchmarks.baseline.resume import Keeper, read_resume
from benchmarks.baseline.workload import Workload
from compression.errors import CompressionError
from compression.training import (
    AnySplit,
    EpochReport,
    Feed,
    Metric,
    Recipe,
    feed_of,
    fit,
    scores,
    shard,
)

log = logging.getLogger(__name__)

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
    sharded: bool = False,
) -> nn.Module:
    """Return the workload's network, trained on `device` with the images there.

    Under torch.distributed all processes train it together, each on its device; `sharded`, each holds
    a part of it, and of what is returned.

    A training of more than 20 s writes `resume`, where it is given, and goes on from it. Where it
    cannot be written, that is reported once and the training goes on.
    """
    recipe, title = workload.recipe_on(device), f"{workload.name} baseline"
    images, validation = (s.to(device) for s in (data.train, data.validation))
    state = None if resume is None else read_resume(resume, report)
    start = workload if state is None else replace(workload, pretrained=None)
    model, feed = _placed(start.initial_network(device), images, recipe, device, sharded=sharded)
    first = 0 if state is None else int(state["epoch"]) + 1
    progress = Progress(title, recipe, images, first, report)
    keeper = Keeper(resume, title, report)

    def after_epoch(epoch: EpochReport) -> None:
        _report_epoch(progress, epoch, model, validation, workload.metric)
        keeper.keep(epoch)
        if on_epoch is not None:
            on_epoch(epoch)

    report(f"{title}: training {recipe.epochs} epochs of {len(images)} images")
    fit(
        model, images, recipe, loss=workload.loss, after_step=progress.on_step,
        on_epoch=after_epoch, resume_from=state and state.get("parts", state), feed=feed,
    )  # fmt: skip
    return model


def _report_epoch(
    progress: Progress, epoch: EpochReport, model: nn.Module, validation: AnySplit, metric: Metric
) -> None:
    """Report an epoch's loss, its score on some validation images, and the time left."""
    progress.steps = (
        epoch.epoch + 1 - progress.first
    ) * progress.steps_per_epoch  # joined ones too
    score = score_of(scores(model, validation.take(PROGRESS_IMAGES), metric))
    progress.say(
        f"epoch {epoch.epoch + 1}/{epoch.epochs}, loss {epoch.mean_loss:.3f}, "
        f"validation {said(metric, score)}, {epoch.seconds:.1f} s per epoch"
    )


def _placed(
    model: nn.Module, images: AnySplit, recipe: Recipe, device: torch.device, *, sharded: bool
) -> tuple[nn.Module, Feed | None]:
    """Return `model` on the device, or its part of it, and how it is fed where `fit` cannot know."""
    if not sharded:
        return _lay_out(model.to(device), images, recipe), None
    feed = feed_of(model, images.to("cpu"), recipe)  # here: the device may not hold it whole
    shard(model, device)
    return model, feed


def _lay_out(model: nn.Module, images: AnySplit, recipe: Recipe) -> nn.Module:
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
