"""Trainings that repair what a technique did."""

from typing import Any

from torch import nn

from benchmarks.baseline import Baseline
from benchmarks.calibration import calibration
from benchmarks.kept import Training, trained
from compression.errors import CompressionError
from compression.integer import deploy
from compression.pruning import fine_tune
from compression.quantization import quantize_static
from compression.training import Recipe, Split


def repaired(
    b: Baseline, model: nn.Module, images: Split, recipe: Recipe, *, taught: bool = False
) -> nn.Module:
    """Return a fine-tuned copy of `model`, zeros kept; the baseline teaches where it is asked to."""
    options = {"teacher": _teacher(b)} if taught else {}
    how = fine_tune_taught if taught else fine_tune
    return trained(b, Training(how, model, images, recipe, options, resumable=True))


def fine_tune_taught(
    model: nn.Module, train: Split, recipe: Recipe, *, teacher: nn.Module, **watch: Any
) -> nn.Module:
    """Fine-tune with a teacher, which integer kernels run where it is an INT8 network."""
    image = train.inputs(slice(0, 1)).to(next(model.parameters()).device)
    return fine_tune(model, train, recipe, teacher=deploy(teacher, image), **watch)


def _teacher(b: Baseline) -> nn.Module:
    """Return the baseline, or its INT8 copy where kernels run it: faster, and as good a teacher."""
    try:
        quantized = quantize_static(b.model, calibration(b))
    except CompressionError:  # an operator that stays in float
        return b.model
    return b.model if deploy(quantized, next(calibration(b))) is quantized else quantized
