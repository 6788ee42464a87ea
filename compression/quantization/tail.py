"""What outputs alone read of a network's last layers: computed on real numbers, as these give them.

A segmentation network ends so: F.interpolate(low(x) + high(y), size). What a last layer gives is real
anyway; codes of it would add their rounding to what the network's users look at.
"""

from collections.abc import Callable, Container, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from compression.quantization.interpolation import Resizing

_LAYOUTS = {4: torch.channels_last, 5: torch.channels_last_3d}


class RealSum(nn.Module):
    """The sum of two real values."""

    def forward(self, one: Tensor, other: Tensor) -> Tensor:
        """Return the sum."""
        return one + other


class RealInterpolation(nn.Module):
    """A linear interpolation of real values along each dimension after the channels."""

    def __init__(self, mode: str, resizing: Resizing) -> None:
        """Interpolate as F.interpolate does with `mode` and `resizing`."""
        super().__init__()
        self.mode, self.resizing = mode, resizing

    def forward(self, values: Tensor, size: Any = None) -> Tensor:
        """Return the interpolation, to `size` where no factor is given."""
        # What torch rounds depends on the layout: every executor's values come in this one.
        layout = _LAYOUTS.get(values.ndim, torch.contiguous_format)
        return F.interpolate(
            values.contiguous(memory_format=layout), size=size, mode=self.mode,
            scale_factor=self.resizing.scale_factor, align_corners=self.resizing.align_corners,
            recompute_scale_factor=self.resizing.recompute_scale_factor,
        )  # fmt: skip

    def matrices(self, sides: Sequence[int], size: Any = None) -> list[Tensor]:
        """Return the weights (places, length) along each dimension of a map of these sides; float32."""
        units = (torch.eye(length, dtype=torch.float64).unsqueeze(0) for length in sides)
        found = (self.resizing.along(axis, unit, size) for axis, unit in enumerate(units))
        return [weights[0].t().float().contiguous() for weights in found]


REAL = RealSum, RealInterpolation
"""The layers of a tail."""


def tail_of(
    candidates: Iterable[fx.Node],
    operands: Callable[[fx.Node], Iterable[fx.Node]],
    layers: Container[fx.Node],
    ends: Container[fx.Node],
) -> tuple[set[fx.Node], set[fx.Node]]:
    """Return those of the candidates (sums, interpolations) that only outputs need, and their layers.

    Their operands are each other, and `layers` that nothing else reads; they are read by each other,
    by the end of the network, and by `ends`: what puts outputs together, or asks for sizes.
    """
    tail = set(candidates)

    def is_returned(node: fx.Node) -> bool:
        return all(user.op == "output" or user in ends or user in tail for user in node.users)

    def is_real(node: fx.Node) -> bool:
        return node in tail or (node in layers and is_returned(node))

    wrong = tail
    while wrong:
        wrong = {n for n in tail if not (is_returned(n) and all(map(is_real, operands(n))))}
        tail -= wrong
    return tail, {source for node in tail for source in operands(node)} - tail
