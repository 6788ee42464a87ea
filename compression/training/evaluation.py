"""Predictions of a network on a split."""

import torch
from torch import Tensor, nn

from compression.errors import CompressionError
from compression.modes import evaluating
from compression.training.checks import check_logits, describe, named_errors
from compression.training.split import Split

BATCH_SIZES = {"cpu": 50, "cuda": 500}
"""By kind of device: on a CPU a few activations stay in its caches (30% faster than 250)."""


@torch.no_grad()
def predict(model: nn.Module, split: Split, *, batch_size: int | None = None) -> Tensor:
    """Return the logits (N, classes, ...), float32 on the CPU, of the split's images in order.

    The batch size, fixed by device, changes the last bits; the model's training flag is restored. A
    model without tensors of its own, an executor, predicts where the images are. Raises
    CompressionError that names the place where the model cannot take a batch, or gives no logits.
    """
    held = [*model.parameters(), *model.buffers()]
    device = held[0].device if held else split.images.device
    if batch_size is None:
        batch_size = BATCH_SIZES.get(device.type, BATCH_SIZES["cuda"])
    if batch_size < 1:
        raise CompressionError(f"batch_size must be at least 1, found {batch_size}")
    with evaluating(model):
        return torch.cat(
            [
                _logits(model, split.inputs(slice(start, start + batch_size)).to(device))
                for start in range(0, len(split), batch_size)
            ]
        )


def _logits(model: nn.Module, inputs: Tensor) -> Tensor:
    with named_errors(model, f"the model cannot take a batch of inputs {describe(inputs)}"):
        logits = check_logits(model, model(inputs))
    if not logits.ndim or len(logits) != len(inputs):
        raise CompressionError(
            f"{type(model).__name__}: expected logits ({len(inputs)}, classes, ...) for inputs "
            f"{describe(inputs)}, found {describe(logits)}"
        )
    return logits.float().cpu()


def correct_images(model: nn.Module, split: Split, *, batch_size: int | None = None) -> Tensor:
    """Tell for each label (N, ...), as bool, whether it is the model's first choice.

    Raises what `predict` raises, and CompressionError for labels of another shape than the choices.
    """
    logits, labels = predict(model, split, batch_size=batch_size), split.labels.cpu()
    if logits.ndim < 2 or (len(logits), *logits.shape[2:]) != labels.shape:
        raise CompressionError(
            f"expected a label for each choice of logits {describe(logits)}, (N, classes, ...), "
            f"found labels {describe(labels)}"
        )
    return logits.argmax(dim=1) == labels
