"""What emits codes."""

import torch
from torch import Tensor, nn

from compression.affine import INT8_MAX, INT8_MIN, QParams


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
    """Base of those that read several values, each of a scale and zero point of its own: 1-dim."""

    input_scales: Tensor
    input_zero_points: Tensor

    def __init__(self, inputs: list[QParams], output: QParams) -> None:
        """Read codes of `inputs`, and emit codes of `output`."""
        super().__init__(output)
        self.register_buffer("input_scales", torch.stack([q.scale for q in inputs]))
        self.register_buffer("input_zero_points", torch.stack([q.zero_point for q in inputs]))

    def centred(self, inputs: tuple[Tensor, ...]) -> list[Tensor]:
        """Return how far each value's codes lie from its zero point, float32."""
        return [codes.float() - self.input_zero_points[i] for i, codes in enumerate(inputs)]
