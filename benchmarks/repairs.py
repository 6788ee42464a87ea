"""Trainings that repair what a technique did, and the teacher that helps."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.baseline import Baseline
from benchmarks.baseline.examples import all_labels
from benchmarks.calibration import calibration
from benchmarks.kept import Training, trained
from compression.distillation import HINTON, Distillation, MeanSquared, names_classes
from compression.errors import CompressionError
from compression.integer import deploy
from compression.pruning import fine_tune
from compression.quantization import StaticQuantizedModel, quantize_static
from compression.training import AnySplit, Recipe


def repaired(
    b: Baseline, model: nn.Module, images: AnySplit, recipe: Recipe, *, taught: bool = False
) -> nn.Module:
    """Return a fine-tuned copy of `model`, zeros kept; the baseline teaches where it is asked to."""
    training = Training(fine_tune, model, images, recipe, resumable=True)
    return trained(b, by_baseline(b, training) if taught else training)


def by_baseline(b: Baseline, training: Training) -> Training:
    """Return the training with the baseline for a teacher."""
    learns = lesson(b)
    if learns != HINTON:
        training = replace(training, options={**training.options, "distillation": learns})
    return taught_by(quick_teacher(b, b.model), training)


def lesson(b: Baseline) -> Distillation:
    """Return what is learned of the baseline: probabilities of classes, or outputs that are none."""
    if b.workload.loss is None:
        return HINTON
    few = b.data.train.take(2)
    with torch.no_grad():
        outputs = b.model(few.inputs(slice(None)).to(b.device))
    return HINTON if names_classes(outputs, all_labels(few).to(b.device)) else MeanSquared()


def taught_by(teacher: nn.Module, training: Training) -> Training:
    """Return the training with a teacher, which is deployed for it."""
    how = partial(with_teacher_deployed, training.how)
    return replace(training, how=how, options={**training.options, "teacher": teacher})


def with_teacher_deployed(
    verb: Callable[..., nn.Module],
    model: nn.Module,
    train: AnySplit,
    recipe: Recipe,
    *,
    teacher: nn.Module,
    **options: Any,
) -> nn.Module:
    """Train by `verb` with a teacher, which integer kernels run where it is an INT8 network."""
    if isinstance(teacher, StaticQuantizedModel):
        teacher = DeployedPerShape(teacher)
    return verb(model, train=train, recipe=recipe, teacher=teacher, **options)


class DeployedPerShape(nn.Module):
    """An INT8 network on one executor per shape of inputs: a recipe's first epochs may be coarse."""

    def __init__(self, network: StaticQuantizedModel) -> None:
        """Take the network; executors are made when inputs come."""
        super().__init__()
        self.network = network
        self._executors: dict[torch.Size, nn.Module] = {}

    def forward(self, inputs: Tensor) -> Any:
        """Return the network's outputs, by an executor that is made at the first inputs of a shape."""
        shape = inputs.shape[1:]
        if shape not in self._executors:
            self._executors[shape] = deploy(self.network, inputs[:1])
        return self._executors[shape](inputs)


def quick_teacher(b: Baseline, model: nn.Module) -> nn.Module:
    """Return `model`, or its INT8 copy where kernels run it: faster, and as good a teacher."""
    try:
        quantized = quantize_static(model, calibration(b))
    except CompressionError:  # an operator that stays in float
        return model
    return model if deploy(quantized, next(calibration(b))) is quantized else quantized
