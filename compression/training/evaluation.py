"""Predictions of a network on a split, and what a metric says of them."""

from collections.abc import Generator
from contextlib import closing
from typing import Any

import torch
from torch import Tensor, nn

from compression.errors import CompressionError
from compression.modes import evaluating
from compression.nested import map_tensors, tensors_in
from compression.training.checks import check_logits, describe, named_errors
from compression.training.metrics import TOP_1, Metric
from compression.training.split import Split

BATCH_SIZES = {"cpu": 50, "cuda": 500}
"""By kind of device: on a CPU a few activations stay in its caches (30% faster than 250)."""


@torch.no_grad()
def predict(model: nn.Module, split: Split, *, batch_size: int | None = None) -> Any:
    """Return the logits (N, classes, ...), float32 on the CPU, of the split's images in order.

    What a network returns in a dictionary or another collection of tensors (N, ...) comes back in
    one. The batch size, fixed by device, changes the last bits; the model's training flag is restored.
    A model without tensors of its own, an executor, predicts where the images are. Raises
    CompressionError that names the place where the model cannot take a batch, or gives no logits.
    """
    parts = [outputs for outputs, _ in _answers(model, split, batch_size)]
    columns = zip(*map(tensors_in, parts), strict=True)
    return map_tensors(parts[0], lambda _: torch.cat(next(columns)), "outputs")


@torch.no_grad()
def scores(
    model: nn.Module, split: Split, metric: Metric, *, batch_size: int | None = None
) -> Tensor:
    """Return the metric's value of each example of the split (N,), float64 or bool, on the CPU.

    Raises what `predict` and the metric raise.

    >>> from compression.training import MEAN_ABSOLUTE_ERROR
    >>> numbers = Split(torch.ones(3, 2), torch.full((3, 2), 0.5), prepare=lambda x: x)
    >>> scores(nn.Identity(), numbers, MEAN_ABSOLUTE_ERROR)
    tensor([0.5000, 0.5000, 0.5000], dtype=torch.float64)
    """
    labels = split.labels.cpu()
    with closing(_answers(model, split, batch_size)) as answers:  # a metric may fail
        return torch.cat([metric(outputs, labels[index]) for outputs, index in answers])


def _answers(
    model: nn.Module, split: Split, batch_size: int | None
) -> Generator[tuple[Any, slice], None, None]:
    """Yield the outputs of each batch, and which images it holds."""
    held = [*model.parameters(), *model.buffers()]
    device = held[0].device if held else split.images.device
    if batch_size is None:
        batch_size = BATCH_SIZES.get(device.type, BATCH_SIZES["cuda"])
    if batch_size < 1:
        raise CompressionError(f"batch_size must be at least 1, found {batch_size}")
    with evaluating(model):
        for start in range(0, len(split), batch_size):
            index = slice(start, start + batch_size)
            yield _outputs(model, split.inputs(index).to(device)), index


def _outputs(model: nn.Module, inputs: Tensor) -> Any:
    with named_errors(model, f"the model cannot take a batch of inputs {describe(inputs)}"):
        outputs = model(inputs)
        if not isinstance(outputs, Tensor):
            found = list(tensors_in(outputs))
            if found and all(t.ndim and len(t) == len(inputs) for t in found):
                return map_tensors(outputs, _on_the_cpu, "outputs")
        logits = check_logits(model, outputs)
    if not logits.ndim or len(logits) != len(inputs):
        raise CompressionError(
            f"{type(model).__name__}: expected logits ({len(inputs)}, classes, ...) for inputs "
            f"{describe(inputs)}, found {describe(logits)}"
        )
    return _on_the_cpu(logits)


def _on_the_cpu(tensor: Tensor) -> Tensor:
    return (tensor.float() if tensor.is_floating_point() else tensor).cpu()


def correct_images(model: nn.Module, split: Split, *, batch_size: int | None = None) -> Tensor:
    """Tell for each label (N, ...), as bool, whether it is the model's first choice.

    Raises what `predict` raises, and CompressionError for labels of another shape than the choices.
    """
    logits = predict(model, split, batch_size=batch_size)
    return TOP_1.of(logits, split.labels.cpu())
