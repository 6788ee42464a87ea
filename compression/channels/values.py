"""Values of a traced network: their shapes, and the labels along one axis."""

from dataclasses import dataclass

import torch
from torch import Tensor

from compression.channels.labels import FIXED, Labels


@dataclass(frozen=True, slots=True)
class Value:
    """A tensor of `shape` whose channels lie along `axis` and have `labels`; None where all stay.

    `vanishes` tells that a channel whose weights are 0 is 0: sums over it are what they are without.
    """

    shape: tuple[int, ...]
    axis: int | None = None
    labels: Tensor | None = None
    vanishes: bool = False

    @property
    def channels(self) -> tuple[int, Tensor]:
        """The axis and the labels of a value that has them."""
        if self.axis is None or self.labels is None:
            raise ValueError("all channels of the value stay")
        return self.axis, self.labels

    def along(self, axis: int) -> Tensor:
        """Return the labels along an axis: FIXED where the channels lie along another."""
        axis %= len(self.shape)
        if self.axis == axis and self.labels is not None:
            return self.labels
        return torch.full((self.shape[axis],), FIXED)

    def full(self) -> Tensor:
        """Return a label for each number of the tensor."""
        if self.axis is None or self.labels is None:
            return torch.full(self.shape, FIXED)
        sizes = [-1 if i == self.axis else 1 for i in range(len(self.shape))]
        return self.labels.view(sizes).expand(self.shape).contiguous()

    def widened(self, ndim: int) -> "Value":
        """Return the value with axes of size 1 before its own, as broadcasting sees it."""
        more = ndim - len(self.shape)
        axis = None if self.axis is None else self.axis + more
        return Value((1,) * more + self.shape, axis, self.labels, self.vanishes)

    def without(self, labels: Labels, gone: Tensor) -> "Value":
        """Return the value once channels whose roots are `gone` (bool per label) are removed."""
        if self.axis is None or self.labels is None:
            return self
        left = self.labels[~gone[labels.roots(self.labels)]]
        shape = (*self.shape[: self.axis], len(left), *self.shape[self.axis + 1 :])
        return Value(shape, self.axis, left, self.vanishes)


Found = Value | tuple[Value, ...]
"""What a node gives: a tensor or several."""


def varying_axes(full: Tensor) -> list[int]:
    """Return the axes along which the roots of a tensor of labels differ, the longest first."""
    axes = [
        axis
        for axis, size in enumerate(full.shape)
        if size > 1 and bool((full.narrow(axis, 0, 1) != full).any())
    ]
    return sorted(axes, key=lambda axis: -full.shape[axis])


def value_of(full: Tensor, labels: Labels) -> Value | None:
    """Return the value with a tensor of labels; None where they lie along several axes."""
    axes = varying_axes(labels.movable(full))
    if len(axes) > 1:
        return None
    shape = tuple(full.shape)
    if not axes or not full.numel():
        # One label for all: what hangs together whole cannot go.
        labels.freeze(full.unique(), "all of them hang together, and one must stay")
        return Value(shape)
    rows = full.movedim(axes[0], 0).reshape(shape[axes[0]], -1)
    return Value(shape, axes[0], rows[:, 0].clone())
