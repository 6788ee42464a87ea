"""Linear interpolation of codes, in whole numbers: every executor gives the same bits."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from compression.affine import QParams
from compression.quantization.codes import CodesOfSeveral

WEIGHT_BITS = 11
"""A neighbour's weight counts units of 2^-11, in each dimension: of two dimensions, sums of codes times
weights fit in int32."""
LINEAR = ("linear", "bilinear", "trilinear")


@dataclass(frozen=True, slots=True)
class Resizing:
    """How F.interpolate makes a map larger or smaller, but for a size that another map gives."""

    scale_factor: Any = None
    align_corners: bool | None = None
    recompute_scale_factor: bool | None = None

    def along(self, axis: int, numbers: Tensor, size: Any = None) -> Tensor:
        """Return numbers (1, C, length), interpolated as they would be along one dimension of a map."""
        return F.interpolate(
            numbers, size=_of_axis(size, axis), scale_factor=_of_axis(self.scale_factor, axis),
            mode="linear", align_corners=self.align_corners,
            recompute_scale_factor=self.recompute_scale_factor,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Neighbours:
    """What each place along a dimension of the output is made of.

    It is `weights` (places, 2), int64, of the codes at `first` and at `second`.
    """

    first: Tensor
    second: Tensor
    weights: Tensor

    def matrix(self, length: int) -> Tensor:
        """Return the real weights (places, length) of all codes along the dimension; float32."""
        matrix = torch.zeros(len(self.first), length)
        for place, weights in zip((self.first, self.second), self.weights.t(), strict=True):
            share = weights.float()[:, None] / 2**WEIGHT_BITS
            matrix.scatter_add_(1, place[:, None], share)
        return matrix


class QuantizedInterpolation(CodesOfSeveral):
    """A linear interpolation of codes along each dimension after the channels, requantized.

    An output is the sum of its neighbours' codes, less their zero point, each times its weight in every
    dimension, as a whole number; then it is float32, times 2^-11 per dimension, times the ratio of the
    scales, and rounded.
    """

    def __init__(self, resizing: Resizing, inputs: QParams, output: QParams) -> None:
        """Interpolate as F.interpolate does with `resizing`."""
        super().__init__([inputs], output)
        self.resizing = resizing

    def forward(self, codes: Tensor, size: Any = None) -> Tensor:
        """Return the codes of the interpolation, to `size` where no factor is given."""
        (centred,) = self.centred((codes,))
        sums, dims = centred.double(), codes.ndim - 2
        for axis, near in enumerate(self.neighbours(codes.shape[2:], size)):
            weights = near.weights.double().view(-1, 2, *[1] * (dims - 1 - axis))
            parts = (sums.index_select(axis + 2, place) for place in (near.first, near.second))
            sums = sum(part * weights[:, i] for i, part in enumerate(parts))  # type: ignore[assignment]
        return self.encode(sums.float() * 2.0 ** -(WEIGHT_BITS * dims) * self.ratio())

    def ratio(self) -> Tensor:
        """Return what makes units of the input units of the output; float32, 0-dim."""
        return self.input_scales[0] / self.output_scale

    def neighbours(self, sides: Sequence[int], size: Any = None) -> list[Neighbours]:
        """Return the neighbours along each dimension of a map of these sides."""
        return [self._along(axis, length, size) for axis, length in enumerate(sides)]

    def matrices(self, sides: Sequence[int], size: Any = None) -> list[Tensor]:
        """Return the weights (places, length) along each dimension of a map of these sides; float32."""
        near = self.neighbours(sides, size)
        return [n.matrix(length) for n, length in zip(near, sides, strict=True)]

    def _along(self, axis: int, length: int, size: Any) -> Neighbours:
        # torch interpolates the places themselves: what it finds at a place is where it looks.
        ends = torch.arange(length, dtype=torch.float64, device=self.output_scale.device)
        places = self.resizing.along(axis, ends.view(1, 1, -1), size).flatten()
        first = places.floor().long().clamp(max=max(0, length - 2))
        after = torch.round((places - first) * 2**WEIGHT_BITS).long()
        weights = torch.stack([2**WEIGHT_BITS - after, after], 1)
        return Neighbours(first, (first + 1).clamp(max=length - 1), weights)


def _of_axis(setting: Any, axis: int) -> Any:
    return setting[axis] if isinstance(setting, list | tuple) else setting
