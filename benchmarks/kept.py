"""Trainings of techniques, each done once: kept for other rows, and for later runs."""

import hashlib
import json
import logging
import os
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, nullcontext, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from inspect import signature
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.baseline import Baseline
from benchmarks.baseline.cache import evict, lock, read_checked, write_checked
from benchmarks.baseline.fingerprints import few, narrow, probe_fingerprint, value_fingerprint
from benchmarks.baseline.judged import score_of
from benchmarks.baseline.resume import Keeper, read_resume
from benchmarks.machine.cost import Meter
from benchmarks.machine.memory import return_freed
from compression.errors import CompressionError
from compression.layers import copy_model, left_out, record_left_out
from compression.paths import cache_folder
from compression.storage import load, save
from compression.training import (
    TOP_1,
    AnySplit,
    EpochReport,
    Metric,
    Recipe,
    has_bfloat16,
    scores,
)

log = logging.getLogger(__name__)

KEPT_BYTES = 4 * 2**30
"""Of a workload's trainings: beyond, those that were used longest ago are deleted."""

NEWER = ("loss",)
"""Options younger than what is kept: left out where they are unused, so that it still counts."""

_PROBED: dict[str, str] = {}
"""By what a training is given: what its code does, found out once per process."""


@dataclass(frozen=True, slots=True)
class Training:
    """A function that trains a network, and what it is given.

    - `how`: (model, train=images, recipe=recipe, **options) -> a new network that can be stored.
    - `probed`: options of so many steps, and the most of each in a probe, which takes few steps.
    - `resumable`: `how` takes `on_epoch` and `resume_from`, and goes on where it was killed.
    - `metric`: what `validation` is judged by.
    - `validation`: images whose accuracy is told after each epoch; then `how` takes `on_epoch`.
    - `note`: hears after each epoch how far it is, where `how` takes `on_epoch`.
    """

    how: Callable[..., nn.Module]
    model: nn.Module
    images: AnySplit
    recipe: Recipe
    options: Mapping[str, Any] = field(default_factory=dict)
    probed: Mapping[str, int] = field(default_factory=dict)
    resumable: bool = False
    validation: AnySplit | None = None
    metric: Metric = TOP_1
    note: Callable[[str], object] = log.debug

    def run(self, **watch: Any) -> nn.Module:
        """Train now."""
        return self.how(self.model, train=self.images, recipe=self.recipe, **self.options, **watch)

    def arguments(self) -> dict[str, Any]:
        """Return all that the function is given, the defaults of what it is not given included."""
        bound = signature(self.how).bind(
            self.model, train=self.images, recipe=self.recipe, **self.options
        )
        bound.apply_defaults()
        return bound.arguments

    def given(self) -> str:
        """Hash what the result depends on but the code (SHA-256)."""
        parts = {**self.arguments(), "": self.how, "validation": self.validation}
        told = [
            (name, value_fingerprint(value))
            for name, value in parts.items()
            if value is not None or name not in NEWER
        ]
        if self.metric != TOP_1:
            told.append(("metric", self.metric.name))
        return hashlib.sha256(repr(told).encode()).hexdigest()

    def probe(self, model: nn.Module) -> str:
        """Hash what the code does: it trains `model` in the network's place, on few images."""
        known = self.arguments()
        fewer = {name: most for name, most in self.probed.items() if known.get(name, 0) > most}
        options = {name: few(value) for name, value in self.options.items()} | fewer
        small = replace(self, model=model, options=options, validation=few(self.validation))

        def work(images: AnySplit, recipe: Recipe) -> str:
            short = replace(small, images=images, recipe=recipe)
            result, notes = _train(short, torch.device("cpu"), None)
            told = [notes[name] for name in ("epoch_accuracy", "left_out")]
            return repr((value_fingerprint(result), told))

        return probe_fingerprint(self.images, self.recipe, work)


def trained(b: Baseline, training: Training) -> nn.Module:
    """Return the network that a training gives, done now or taken from an earlier row or run.

    What counts is all that the training is given, and what its code does. The number of threads does
    not: where it changes sums, it has changed the baseline's weights too, and a long training of a
    checkpoint gets the cores that are free. The cost is that of the training, whenever it was done.
    """
    with (b.meter or Meter(b.device)).instead() as count:
        training = of_task(b, training)
        place, told = _place(b, training), replace(training, note=b.note)
        model, notes = _obtain(place, told, b.device)
        count(notes["seconds"], notes["peak_bytes"])
    if b.on_epoch is not None:
        for accuracy in notes["epoch_accuracy"]:
            b.on_epoch(accuracy)
    return model


def of_task(b: Baseline, training: Training) -> Training:
    """Return the training with the loss and the metric of the workload."""
    loss = {} if b.workload.loss is None else {"loss": b.workload.loss}
    return replace(training, options={**loss, **training.options}, metric=b.workload.metric)


def _obtain(
    path: Path | None, training: Training, device: torch.device
) -> tuple[nn.Module, dict[str, Any]]:
    """Return what was kept at `path`, or train now, and keep it where that can be."""
    with ExitStack() as held:
        try:
            held.enter_context(lock(path) if path else nullcontext())
            resume = path.with_suffix(".resume") if path and training.resumable else None
        except CompressionError as error:  # a folder that can only be read
            log.info("a training is not kept: %s", error)
            resume = None
        found = path and _read(path, training.model, device)
        if found:
            return found
        return_freed()  # by a probe, say: it would hide what the training takes
        model, notes = _train(training, device, resume)
        if path:
            _write(path, model, notes)
        return model, notes


def _read(
    path: Path, model: nn.Module, device: torch.device
) -> tuple[nn.Module, dict[str, Any]] | None:
    """Return what was kept at `path`, None where there is nothing, or a bit has changed."""
    try:
        notes = read_checked(path.with_suffix(".json"))
        if notes is None:
            return None
        kept = load(path, partial(copy_model, model))
    except CompressionError as error:
        log.info("a training is done again: %s", error)
        return None
    with suppress(OSError):
        os.utime(path)  # so that it is not among those that were used longest ago
    found: dict[str, Any] = json.loads(notes)
    record_left_out(kept, found["left_out"])
    return kept.to(device), found


def _write(path: Path, model: nn.Module, notes: dict[str, Any]) -> None:
    """Keep a network and what is told of it, and make room; what cannot be kept costs no training."""
    try:
        save(model, path)
        write_checked(path.with_suffix(".json"), json.dumps(notes).encode())
        path.with_suffix(".resume").unlink(missing_ok=True)
        evict(path.parent, path.stem.rpartition("-")[0], KEPT_BYTES)
    except (CompressionError, OSError) as error:  # a full disk, a network that no file can hold
        log.info("a training is not kept: %s", error)


def _train(
    training: Training, device: torch.device, resume: Path | None
) -> tuple[nn.Module, dict[str, Any]]:
    """Train now, on from `resume` where it is there, and return the network and what is told of it."""
    state = None if resume is None else read_resume(resume, log.info)
    before_s = state["seconds"] if state else 0.0
    accuracies: list[float] = state["epoch_accuracy"] if state else []
    keeper = Keeper(resume, f"training {resume and resume.stem}", log.info)

    def seconds() -> float:
        return before_s + time.perf_counter() - started

    def after_epoch(epoch: EpochReport) -> None:
        left_s = (epoch.epochs - epoch.epoch - 1) * epoch.seconds
        training.note(f"epoch {epoch.epoch + 1}/{epoch.epochs}, about {left_s / 60:.1f} min left")
        if training.validation is not None:
            accuracies.append(score_of(scores(epoch.model, training.validation, training.metric)))
        told = {"seconds": seconds(), "epoch_accuracy": accuracies}
        keeper.keep(replace(epoch, state=lambda: {**epoch.state(), **told}))

    watched = training.resumable or training.validation is not None
    watch: dict[str, Any] = {"on_epoch": after_epoch} if watched else {}
    with Meter(device) as meter:
        started = time.perf_counter()
        model = training.run(**watch, **({"resume_from": state} if state else {}))
        notes = {"seconds": seconds(), "epoch_accuracy": accuracies, "left_out": left_out(model)}
    return model, {**notes, "peak_bytes": meter.peak_bytes}


def _place(b: Baseline, training: Training) -> Path | None:
    """Return where a training is kept; None where its code cannot be probed."""
    precision = training.recipe.precision if has_bfloat16(b.device) else "float32"
    try:
        given = "|".join([training.given(), b.device.type, precision, torch.__version__])
        if given not in _PROBED:
            _PROBED[given] = _probe(training)
        name = hashlib.sha256(f"{given}|{_PROBED[given]}".encode()).hexdigest()[:16]
        return cache_folder() / "trainings" / f"{b.workload.name}-{name}.safetensors"
    except Exception as error:  # the training itself will report it
        log.info("a training is not kept, few steps of it fail: %s", error)
        return None


def _probe(training: Training) -> str:
    try:
        return training.probe(narrow(training.model, training.images))
    except CompressionError:  # channels that are too few for what is asked of them
        return training.probe(few(training.model))
