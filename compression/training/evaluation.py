"""Predictions of a network on labelled images, and what a metric says of them."""

from collections.abc import Generator, Iterable
from contextlib import closing
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset

from compression.errors import CompressionError
from compression.modes import evaluating
from compression.nested import map_tensors, tensors_in
from compression.training.checks import check_logits, describe, describe_any, named_errors
from compression.training.metrics import TOP_1, Metric
from compression.training.sources import Labelled, labelled_batches
from compression.training.split import Split
from compression.training.streamed import StreamedSplit

BATCH_SIZES = {"cpu": 50, "cuda": 500}
"""By kind of device: on a CPU a few activations stay in its caches (30% faster than 250)."""


@torch.no_grad()
def predict(model: nn.Module, split: Labelled, *, batch_size: int | None = None) -> Any:
    """Return the logits (N, classes, ...), float32 on the CPU, of the split's images in order.

    What a network returns in a dictionary or another collection of tensors (N, ...) comes back in
    one. A DataLoader's are those of its own batches, in their order; a stream is read to its end. The
    batch size, fixed by device, changes the last bits; the model's training flag is restored.
    A model without tensors of its own, an executor, predicts where the images are. Raises
    CompressionError that names the place where the model cannot take a batch, or gives no logits.
    """
    with closing(_answers(model, split, batch_size)) as answers:
        return _joined((outputs for outputs, _ in answers), split)


@torch.no_grad()
def scores(
    model: nn.Module, split: Labelled, metric: Metric, *, batch_size: int | None = None
) -> Tensor:
    """Return the metric's value of each example of the split (N,), float64 or bool, on the CPU.

    Of a split that is streamed no more than a batch is held. Raises what `predict` and the metric
    raise.

    >>> from compression.training import MEAN_ABSOLUTE_ERROR
    >>> numbers = Split(torch.ones(3, 2), torch.full((3, 2), 0.5), prepare=lambda x: x)
    >>> scores(nn.Identity(), numbers, MEAN_ABSOLUTE_ERROR)
    tensor([0.5000, 0.5000, 0.5000], dtype=torch.float64)
    """
    with closing(_answers(model, split, batch_size)) as answers:  # a metric may fail
        values: Tensor = _joined((metric(*answer) for answer in answers), split)
        return values


@torch.no_grad()
def correct_images(model: nn.Module, split: Labelled, *, batch_size: int | None = None) -> Tensor:
    """Tell for each label (N, ...), as bool, whether it is the model's first choice.

    Of a split that is streamed no more than a batch is held. Raises what `predict` raises, and
    CompressionError for labels of another shape than the choices.
    """
    with closing(_answers(model, split, batch_size)) as answers:
        found: Tensor = _joined((_correct(*answer) for answer in answers), split)
        return found


def _correct(outputs: Any, labels: Any) -> Tensor:
    if not isinstance(labels, Tensor):
        raise CompressionError(
            f"expected a label for each choice of a network's logits, found labels "
            f"{describe_any(labels)}"
        )
    return TOP_1.of(outputs, labels)


def _answers(
    model: nn.Module, split: Labelled, batch_size: int | None
) -> Generator[tuple[Any, Any]]:
    """Yield the outputs of each batch on the CPU, and its labels."""
    device = _device_of(model, split)
    if batch_size is None:
        batch_size = BATCH_SIZES.get(device.type, BATCH_SIZES["cuda"])
    if batch_size < 1:
        raise CompressionError(f"batch_size must be at least 1, found {batch_size}")
    with evaluating(model):
        for inputs, labels in labelled_batches(split, batch_size):
            labels = map_tensors(labels, lambda tensor: tensor.cpu(), "labels")
            yield _outputs(model, inputs.to(device)), labels


def _device_of(model: nn.Module, split: Labelled) -> torch.device:
    """Return where the model is, or where the images are."""
    held = [*model.parameters(), *model.buffers()]
    if held:
        return held[0].device
    return split.device if isinstance(split, Split | StreamedSplit) else torch.device("cpu")


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


def _joined(parts: Iterable[Any], split: Labelled) -> Any:
    """Return the answers (n, ...) to a split's batches one after the other, in one block of memory.

    Small ones that are kept between large batches would split the memory that these leave.
    """
    count = 0 if isinstance(split, DataLoader | IterableDataset) else len(split)  # type: ignore[arg-type]
    first: Any = None
    blocks: list[Tensor] = []
    filled = 0
    for part in parts:
        tensors = list(tensors_in(part))
        if not filled:
            first = part
            blocks = [t.new_empty((max(count, len(t)), *t.shape[1:])) for t in tensors]
        blocks = [_put(b, t, filled) for b, t in zip(blocks, tensors, strict=True)]
        filled += len(tensors[0])
    if not filled:
        raise CompressionError(f"{type(split).__name__}: expected images to predict, found none")
    whole = (b if filled == len(b) else b[:filled].clone() for b in blocks)
    return map_tensors(first, lambda _: next(whole), "outputs")


def _put(block: Tensor, part: Tensor, filled: int) -> Tensor:
    """Return the block with `part` after what fills it, or a longer one."""
    if part.shape[1:] != block.shape[1:]:
        raise CompressionError(
            f"expected answers (N, ...) of one shape in all batches, found {describe(part)} after "
            f"{describe(block[:filled])}"
        )
    end = filled + len(part)
    if end > len(block):
        block = torch.cat([block[:filled], block.new_empty((end, *part.shape[1:]))])
    block[filled:end] = part
    return block
