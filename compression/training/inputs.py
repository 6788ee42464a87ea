"""Batches of inputs as people have them: tensors, pairs (inputs, labels), a Dataset, a DataLoader."""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from compression.errors import CompressionError, UnsupportedTypeError
from compression.training.sources import labelled_batches
from compression.training.split import Split
from compression.training.streamed import StreamedSplit

BATCH_SIZE = 64
"""Of what has no batches of its own."""


def input_batches(batches: Any, purpose: str = "calibration") -> Iterator[Tensor]:
    """Yield the tensors of inputs (N, ...) of `batches`, labels dropped and empty batches left out.

    `batches` is one tensor, an iterable of tensors or of pairs (inputs, labels), a DataLoader, or a
    Dataset or split, which is read to its end, 64 at a time. Raises UnsupportedTypeError that names
    the batch for anything else, and CompressionError where no batch holds an input; `purpose` says in
    both what the batches are for.
    """
    batches = pairs_of(batches)
    if not isinstance(batches, Tensor | Iterable):
        raise UnsupportedTypeError(
            f"{purpose}: expected a tensor of inputs or an iterable of batches, found "
            f"{type(batches).__name__}"
        )
    empty = True
    for number, batch in enumerate([batches] if isinstance(batches, Tensor) else batches, 1):
        inputs = batch[0] if isinstance(batch, tuple | list) and batch else batch
        if not isinstance(inputs, Tensor) or not inputs.ndim or inputs.is_complex():
            found = (
                type(inputs).__name__ if not isinstance(inputs, Tensor) else "a 0-dim or complex"
            )
            raise UnsupportedTypeError(
                f"{purpose}: batch {number}: expected a tensor of inputs (N, ...), alone or first in "
                f"a pair (inputs, labels), found {found}"
            )
        if len(inputs):
            empty = False
            yield inputs
    if empty:
        raise CompressionError(f"the {purpose} set is empty: pass some training images' inputs")


def pairs_of(batches: Any) -> Any:
    """Return the pairs (inputs, labels) of a Dataset, DataLoader or split, in batches; others as is."""
    held = isinstance(batches, Split | StreamedSplit | Dataset | DataLoader)
    return labelled_batches(batches, BATCH_SIZE) if held else batches


def example_of(example: Any) -> Any:
    """Return an example's inputs: the first of a Dataset or split, a DataLoader's first batch.

    What is none of these, a tensor or a tuple of them, is returned as it is.
    """
    if not isinstance(example, Split | StreamedSplit | Dataset | DataLoader):
        return example
    found = [inputs for inputs, _ in islice(labelled_batches(example, 1), 1)]
    if not found:
        raise CompressionError(f"{type(example).__name__}: expected an example, found none")
    return found[0]
