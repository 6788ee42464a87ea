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
