"""The layers of a statically quantized network: int8 codes in, int8 codes out.

The reference executor computes on integers held in float32 and float64: their sums are exact, and each
is rounded to float32 once, as the integer kernels round it.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compression.affine import INT8_MAX, INT8_MIN, QParams
from compression.quantization.attention import QuantizedAttention
from compression.quantization.codes import Codes
from compression.quantization.fallback import InFloat
from compression.quantization.functions import QuantizedFunction, QuantizedProduct
from compression.quantization.interpolation import QuantizedInterpolation
from compression.quantization.layer import QuantizedLayer
from compression.quantization.norm import QuantizedLayerNorm
from compression.quantization.repeated import RepeatedCodes
from compression.quantization.sums import QuantizedJoin, QuantizedRest
from compression.quantization.tail import REAL, RealInterpolation, RealSum

__all__ = [
    "REAL", "ClampCodes", "Codes", "Dequantize", "InFloat", "MeanOver", "MovedCodes", "OnCodes",
    "Quantize",
    "QuantizedAffine", "QuantizedAttention", "QuantizedFunction", "QuantizedInterpolation",
    "QuantizedJoin", "QuantizedLayer", "QuantizedLayerNorm", "QuantizedMean", "QuantizedProduct",
    "QuantizedRest", "RealInterpolation", "RealSum", "RepeatedCodes",
]  # fmt: skip

_POOLS = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}


class Quantize(Codes):
    """Real inputs -> codes."""

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the codes of `inputs`, of any real dtype; what is not a number counts as 0."""
        reals = inputs.float()
        return self.encode(reals.masked_fill(reals.isnan(), 0) / self.output_scale)


class Dequantize(nn.Module):
    """Codes -> real outputs."""

    scale: Tensor
    zero_point: Tensor

    def __init__(self, qparams: QParams) -> None:
        """Read codes of `qparams`."""
        super().__init__()
        self.register_buffer("scale", qparams.scale.clone())
        self.register_buffer("zero_point", qparams.zero_point.clone())

    def forward(self, codes: Tensor) -> Tensor:
        """Return scale (codes - zero point), float32."""
        return (codes.float() - self.zero_point) * self.scale


class QuantizedAffine(Codes):
    """Codes times a number plus a number, requantized."""

    input_scale: Tensor
    input_zero_point: Tensor

    def __init__(self, inputs: QParams, output: QParams, *, factor: float, offset: float) -> None:
        """Return factor x + offset."""
        super().__init__(output)
        self.register_buffer("input_scale", inputs.scale.clone())
        self.register_buffer("input_zero_point", inputs.zero_point.clone())
        self.factor, self.offset = factor, offset

    def forward(self, codes: Tensor) -> Tensor:
        """Return the codes of factor x + offset."""
        ratio = self.input_scale * self.factor / self.output_scale
        scaled = (codes.float() - self.input_zero_point) * ratio
        return self.encode(scaled + self.offset / self.output_scale)


class MeanOver(nn.Module):
    """The mean over fixed dimensions; over all for none."""

    def __init__(self, dims: tuple[int, ...], *, keepdim: bool) -> None:
        """Average over `dims`."""
        super().__init__()
        self.dims, self.keepdim = dims, keepdim

    def forward(self, x: Tensor) -> Tensor:
        """Return the mean: one division of an exact sum, where `x` holds whole numbers."""
        dims = self.dims or tuple(range(x.ndim))
        count = math.prod(x.shape[d] for d in dims)
        dtype = torch.float64 if 255 * count >= 2**24 else torch.float32
        return x.sum(dims, keepdim=self.keepdim, dtype=dtype).float() / count


class QuantizedMean(Codes):
    """An average (pooling) of codes, requantized."""

    input_scale: Tensor
    input_zero_point: Tensor

    def __init__(self, pool: nn.Module, inputs: QParams, output: QParams) -> None:
        """Apply `pool`, a linear function without parameters."""
        super().__init__(output)
        self.register_buffer("input_scale", inputs.scale.clone())
        self.register_buffer("input_zero_point", inputs.zero_point.clone())
        self.pool = pool

    def forward(self, codes: Tensor) -> Tensor:
        """Return the codes of the average."""
        means = self.mean(codes.float() - self.input_zero_point)
        return self.encode(means * (self.input_scale / self.output_scale))

    def mean(self, x: Tensor) -> Tensor:
        """Return the average of whole numbers: an exact sum, divided once."""
        pool = self.pool
        if x.numel() and isinstance(pool, nn.modules.pooling._AdaptiveAvgPoolNd):
            rank = int(type(pool).__name__[-2])
            sides = x.shape[-rank:]
            asked = (
                pool.output_size
                if isinstance(pool.output_size, tuple)
                else [pool.output_size] * rank
            )
            outputs = [n if m is None else m for n, m in zip(sides, asked, strict=True)]
            if all(m == 1 for m in outputs):
                return MeanOver(tuple(range(-rank, 0)), keepdim=True)(x)  # type: ignore[no-any-return]
            # torch's adaptive pool divides by the rows and then by the columns.
            if all(n % m == 0 for n, m in zip(sides, outputs, strict=True)):
                return _POOLS[rank](x, [n // m for n, m in zip(sides, outputs, strict=True)])
        means: Tensor = pool(x)
        return means


class OnCodes(nn.Module):
    """A monotone function (max-pool) applied to codes as they are."""

    def __init__(self, function: nn.Module) -> None:
        """Apply `function`, which need not know int8."""
        super().__init__()
        self.function = function

    def forward(self, codes: Tensor) -> Tensor:
        """Return the function's codes."""
        outputs: Tensor = self.function(codes.float())
        return outputs.to(torch.int8)


class MovedCodes(nn.Module):
    """What puts numbers elsewhere (nearest-neighbour interpolation) and does not know int8."""

    def __init__(self, function: Callable[..., Tensor]) -> None:
        """Apply `function`."""
        super().__init__()
        self.function = function

    def forward(self, codes: Tensor, *sizes: Any) -> Tensor:
        """Return the codes, or other whole numbers, where the function puts them, given `sizes`."""
        return self.function(codes.double(), *sizes).to(codes.dtype)


class ClampCodes(nn.Module):
    """A ReLU or another clamp that no layer before it could take in: a clamp in its input's codes."""

    low: Tensor
    high: Tensor

    def __init__(self, qparams: QParams, low: float | None, high: float | None) -> None:
        """Clamp to `low` and `high`, each where it is given."""
        super().__init__()
        for name, bound, end in (("low", low, INT8_MIN), ("high", high, INT8_MAX)):
            code = torch.tensor(end, dtype=torch.int32)
            if bound is not None:
                # In float64: a bound far beyond the codes must not wrap round.
                steps = torch.round(bound / qparams.scale.double()) + qparams.zero_point
                code = steps.clamp(INT8_MIN, INT8_MAX).to(torch.int32)
            self.register_buffer(name, code)

    def forward(self, codes: Tensor) -> Tensor:
        """Return the clamped codes."""
        return codes.clamp(self.low, self.high).to(torch.int8)
