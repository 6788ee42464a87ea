"""What emits codes."""

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

from compression.affine import INT8_MAX, INT8_MIN, QParams, quantize

T = TypeVar("T")


class Codes(nn.Module):
    """Base of the layers that emit codes: scale and zero point of their output, 0-dim."""

    output_scale: Tensor
    output_zero_point: Tensor

    def __init__(self, output: QParams) -> None:
        """Emit codes of `output`."""
        super().__init__()
        self.register_buffer("output_scale", output.scale.clone())
        self.register_buffer("output_zero_point", output.zero_point.clone())

    def encode(self, quotient: Tensor) -> Tensor:
        """Return the codes (int8) of real numbers already divided by the output's scale."""
        codes = torch.round(quotient) + self.output_zero_point
        return codes.clamp_(INT8_MIN, INT8_MAX).to(torch.int8)


class CodesOfSeveral(Codes):
    """Base of those that read several values, each of a scale and zero point of its own: 1-dim.

    `held` maps the places of values that no input changes to what they are: they are kept as codes.
    """

    input_scales: Tensor
    input_zero_points: Tensor

    def __init__(
        self, inputs: list[QParams], output: QParams, held: Mapping[int, Tensor] | None = None
    ) -> None:
        """Read codes of `inputs`, and emit codes of `output`."""
        super().__init__(output)
        self.register_buffer("input_scales", torch.stack([q.scale for q in inputs]))
        self.register_buffer("input_zero_points", torch.stack([q.zero_point for q in inputs]))
        self.hold(
            {
                place: quantize(value.to(inputs[place].scale.device), inputs[place])
                for place, value in (held or {}).items()
            }
        )

    def hold(self, codes: Mapping[int, Tensor]) -> None:
        """Keep the codes of the values at these places."""
        self.held_places = tuple(codes)
        self.parameter_buffers = tuple(f"held{place}" for place in codes)
        for place, held in codes.items():
            self.register_buffer(f"held{place}", held)

    def held(self) -> dict[int, Tensor]:
        """Return the codes that are kept here, by their places."""
        return {place: self.get_buffer(f"held{place}") for place in self.held_places}

    def whole(self, inputs: Sequence[T], held: Callable[[Tensor], T]) -> list[T]:
        """Return all operands in order: those given, and what `held` makes of the codes kept here."""
        given = iter(inputs)
        return [
            held(self.get_buffer(f"held{i}")) if i in self.held_places else next(given)
            for i in range(len(self.input_scales))
        ]

    def centred(self, inputs: tuple[Tensor, ...]) -> list[Tensor]:
        """Return how far each value's codes lie from its zero point, float32."""
        operands = self.whole(inputs, lambda codes: codes)
        return [codes.float() - self.input_zero_points[i] for i, codes in enumerate(operands)]
