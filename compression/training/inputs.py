"""Batches of inputs as people have them: tensors, or what a DataLoader of (inputs, labels) gives."""

from collections.abc import Iterable, Iterator
from typing import Any

from torch import Tensor

from compression.errors import CompressionError, UnsupportedTypeError


def input_batches(batches: Any, purpose: str = "calibration") -> Iterator[Tensor]:
    """Yield the tensors of inputs (N, ...) of `batches`, labels dropped and empty batches left out.

    `batches` is one tensor, or an iterable of tensors or of pairs (inputs, labels). Raises
    UnsupportedTypeError that names the batch for anything else, and CompressionError where no batch
    holds an input; `purpose` says in both what the batches are for.
    """
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
