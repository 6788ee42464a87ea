"""What an executor wants of the steps: its codes' offset, and how it packs weights."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from compression.affine import INT8_MAX, INT8_MIN
from compression.integer.steps.geometry import Geometry
from compression.integer.steps.step import Weights
from compression.integer.steps.windows import Window

Pack = Callable[[Tensor, int, Window, Geometry, list[int]], tuple[Weights, Tensor | None] | None]
"""Weights (O, I of a group, D, H, W), their groups, how their window slides, over what, and the
output's frames, rows and columns -> the weights as the executor reads them, and the order of the
output's pixels, None for row by row; None where these groups are products of their own."""


@dataclass(frozen=True, slots=True)
class Target:
    """An executor of steps by its `name`: its codes are the network's plus `offset`.

    With `slices` its products read and write some of a pixel's channels: a group's.
    """

    name: str
    offset: int
    pack: Pack
    slices: bool = False

    @property
    def bounds(self) -> tuple[int, int]:
        """Return the executor's smallest and largest code."""
        return INT8_MIN + self.offset, INT8_MAX + self.offset

    @property
    def largest(self) -> int:
        """Return the largest magnitude of a code."""
        low, high = self.bounds
        return max(high, -low)

    def zero(self, zero_point: Tensor | None) -> int:
        """Return the executor's zero point of the network's; 0 for none."""
        return 0 if zero_point is None else int(zero_point) + self.offset
