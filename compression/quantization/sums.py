"""Sums and concatenations of codes, and what their rounding leaves."""

from collections.abc import Mapping

import torch
from torch import Tensor

from compression.affine import TINY, QParams
from compression.quantization.codes import CodesOfSeveral

REST_STEPS = 256
"""Steps of what rounding leaves: so many are one of what was rounded."""


class QuantizedJoin(CodesOfSeveral):
    """Addition or concatenation of codes with scales of their own, requantized to one."""

    def __init__(
        self,
        inputs: list[QParams],
        output: QParams,
        *,
        dim: int | None,
        held: Mapping[int, Tensor] | None = None,
    ) -> None:
        """Add the inputs, or concatenate them along `dim`; those `held` stand in each image."""
        super().__init__(inputs, output, held)
        self.dim = dim

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return the codes of the sum, broadcast, or of the concatenation."""
        return self.encode(self.steps(inputs))

    def ratios(self) -> Tensor:
        """Return what a step of each input is in steps of the sum, float32."""
        return self.input_scales / self.output_scale

    def steps(self, inputs: tuple[Tensor, ...]) -> Tensor:
        """Return the sum or the concatenation in its own steps, not rounded; float32."""
        ratios = self.ratios()
        parts = [x * ratios[i] for i, x in enumerate(self.centred(inputs))]
        if self.dim is None:
            return sum(parts[1:], parts[0])
        images = max(len(part) for part in parts) if min(map(len, parts)) else 0
        for place in self.held_places:
            parts[place] = parts[place].expand(images, *parts[place].shape[1:])
        return torch.cat(parts, self.dim)


class QuantizedRest(QuantizedJoin):
    """What the rounding of a QuantizedJoin leaves, in REST_STEPS to a step of it."""

    rounded_zero_point: Tensor

    def __init__(self, join: QuantizedJoin, inputs: list[QParams], rounded: QParams) -> None:
        """Join the inputs as `join` does, which gives codes of `rounded`, and hold what it holds."""
        super().__init__(inputs, rest_of(rounded), dim=join.dim)
        self.hold(join.held())
        self.register_buffer("rounded_zero_point", rounded.zero_point.clone())

    def ratios(self) -> Tensor:
        """Return what a step of each input is in steps of what was rounded, float32."""
        return super().ratios() / REST_STEPS

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return the codes of what is left of the sum or concatenation; its own codes come first."""
        rounded, *operands = inputs
        whole = rounded.float() - self.rounded_zero_point
        return self.encode((self.steps(tuple(operands)) - whole) * REST_STEPS)


def rest_of(rounded: QParams) -> QParams:
    """Return the parameters of what rounding to codes of `rounded` leaves."""
    zero_point = torch.zeros_like(rounded.zero_point)
    return QParams((rounded.scale / REST_STEPS).clamp(min=TINY), zero_point, symmetric=False)
