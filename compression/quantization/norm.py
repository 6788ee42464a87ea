"""LayerNorm on codes: the sums of a row's codes and of their squares are exact.

    y = (C q - S1) / sqrt(C S2 - S1^2 + C^2 eps / scale^2) gamma + beta

for a row of C codes q, their sum S1 and the sum of their squares S2: mean and variance need neither
the zero point nor a rounding (Ba et al. 2016, arXiv:1607.06450). Of a sum whose rounding is known q is
REST_STEPS codes + rest, in so many steps to one of the codes.
"""

import math

import torch
from torch import Tensor, nn

from compression.affine import TINY, QParams
from compression.errors import CompressionError
from compression.quantization.codes import Codes
from compression.quantization.sums import REST_STEPS

MOST_CODES = 2**19
"""Codes of a row: whole numbers of int32 count what lies between one and the mean, C times."""
MOST_FINE_CODES = 2**14
"""The same of codes with what their rounding left."""


class QuantizedLayerNorm(Codes):
    """A LayerNorm on codes: whole numbers until the square root, then float32, requantized."""

    parameter_buffers = ("weight", "bias")
    weight: Tensor
    bias: Tensor
    input_scale: Tensor

    def __init__(
        self,
        norm: nn.LayerNorm,
        inputs: QParams,
        output: QParams,
        name: str,
        *,
        rest: QParams | None = None,
    ) -> None:
        """Take over factors, shifts and epsilon of `norm`; `name` is its name in an error.

        With `rest` the norm reads what the rounding of its inputs left, too.
        """
        super().__init__(output)
        self.fine = rest is not None
        self.shape, self.eps = tuple(norm.normalized_shape), norm.eps
        self.dims = len(self.shape)
        self.count = math.prod(norm.normalized_shape)
        most = MOST_FINE_CODES if self.fine else MOST_CODES
        if not 0 < self.count <= most:
            raise CompressionError(
                f"{name}: a LayerNorm on codes takes rows of 1 to {most} numbers, found {self.count}"
            )
        for role, default in (("weight", 1.0), ("bias", 0.0)):
            held = getattr(norm, role)
            given = torch.full((1,) * self.dims, default) if held is None else held
            self.register_buffer(role, given.detach().float().to(inputs.scale.device).clone())
        self.register_buffer("input_scale", inputs.scale.clone())
        if not all(torch.isfinite(part).all() for part in self.factors()):
            raise CompressionError(
                f"{name}: its factors and shifts are beyond float32 beside its outputs in calibration, "
                "which reach "
                f"{float(output.scale) * 255:.3g} only; calibrate on other inputs"
            )

    def factors(self) -> tuple[Tensor, Tensor]:
        """Return the factors and shifts in units of the output, float32, flat."""
        weight, bias = (
            (part / self.output_scale).expand(self.shape).flatten().contiguous()
            for part in (self.weight, self.bias)
        )
        return weight, bias

    def epsilon(self) -> Tensor:
        """Return C^2 eps in squared steps of the input, or of its rest: float32, 0-dim, above 0."""
        step = self.input_scale.double() / (REST_STEPS if self.fine else 1)
        steps = self.count**2 * self.eps / step.square()
        return steps.clamp(TINY, torch.finfo(torch.float32).max).float()

    def forward(self, codes: Tensor, rest: Tensor | None = None) -> Tensor:
        """Return the codes of the normalized rows."""
        rows = codes.flatten(codes.ndim - self.dims).long()
        if rest is not None:
            rows = REST_STEPS * rows + rest.flatten(rest.ndim - self.dims)
        total = rows.sum(-1, keepdim=True)
        spread = self.count * rows.square().sum(-1, keepdim=True) - total.square()
        inverse = 1 / rounded_root(spread.float() + self.epsilon())
        weight, bias = self.factors()
        normal = (self.count * rows - total).float() * inverse
        return self.encode(normal * weight + bias).view(codes.shape)


def rounded_root(x: Tensor) -> Tensor:
    """Return the square roots of float32 numbers, each the float32 next to it, as kernels have it.

    Where torch computes many at once (by MKL) one in 200 is the float32 after that: LayerNorm would
    round another code than every executor. Those of float64 are near enough to round rightly
    (Figueroa 1995, "When is double rounding innocuous?").
    """
    return x.double().sqrt().float()
