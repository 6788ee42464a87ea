"""Layers without weights on uint8 codes, and those that the reference executor computes."""

from typing import Any

import torch
from torch import Tensor, nn

from compression.integer.codes import LARGEST, OFFSET, signed, unsigned, unsigned_zero
from compression.integer.windows import pool_window
from compression.quantization import modules as q
from compression.quantization.sums import REST_STEPS


def scale_of(scale: Tensor | None) -> float:
    """Return a scale as a number, 1 where there is none."""
    return 1.0 if scale is None else float(scale)


class MaxPool(nn.Module):
    """A max-pool on codes."""

    def __init__(self, pool: nn.MaxPool2d) -> None:
        """Take the window of `pool`."""
        super().__init__()
        self.window = pool_window(pool)
        self.ceil_mode = pool.ceil_mode

    def forward(self, codes: Tensor) -> Tensor:
        """Return the largest code of each window."""
        outputs: Tensor = torch.ops.quantized.max_pool2d(codes, *self.window, self.ceil_mode)
        return outputs


class Mean(nn.Module):
    """An average (pooling) of codes, requantized."""

    def __init__(self, layer: q.QuantizedMean) -> None:
        """Take the pool and the scales of `layer`."""
        super().__init__()
        self.layer, pool = layer, layer.pool
        whole = isinstance(pool, nn.AdaptiveAvgPool2d) and pool.output_size in (1, (1, 1))
        self.whole = whole  # the usual one needs no copy in float32
        self.ratio = scale_of(layer.input_scale) / scale_of(layer.output_scale)
        self.x_zero_point = unsigned_zero(layer.input_zero_point)
        self.zero_point = unsigned_zero(layer.output_zero_point)

    def forward(self, codes: Tensor) -> Tensor:
        """Return the codes of the average; the pool pads with the real number 0."""
        if self.whole:
            means = codes.mean((-2, -1), keepdim=True, dtype=torch.float32).sub_(self.x_zero_point)
        else:
            means = self.layer.mean(codes.float().sub_(self.x_zero_point))
        return rounded_codes(means.mul_(self.ratio).add_(self.zero_point))


class Join(nn.Module):
    """An addition that no layer could take in, or a concatenation."""

    def __init__(self, layer: q.QuantizedJoin) -> None:
        """Take the scales of `layer`."""
        super().__init__()
        self.layer, out = layer, scale_of(layer.output_scale)
        self.ratios = [float(s) / out for s in layer.input_scales]
        self.zero_points = [int(z) + OFFSET for z in layer.input_zero_points]
        self.zero_point, self.dim = unsigned_zero(layer.output_zero_point), layer.dim

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return the codes of the sum or of the concatenation."""
        parts = self._parts(inputs)
        if self.dim is not None:
            return torch.cat([self._one(i, codes) for i, codes in enumerate(parts)], self.dim)
        return rounded_codes(self._sum(parts).add_(self.zero_point))

    def _parts(self, inputs: tuple[Tensor, ...]) -> list[Tensor]:
        """Return the codes of all operands, those included that the layer holds."""
        if self.dim is None:
            return self.layer.whole(inputs, unsigned)
        images = len(inputs[0])
        return self.layer.whole(inputs, lambda h: unsigned(h).expand(images, *h.shape[1:]))

    def _sum(self, parts: list[Tensor]) -> Tensor:
        """Return the sum in steps of the output."""
        total = self._steps(0, parts[0])
        others = zip(parts[1:], self.zero_points[1:], self.ratios[1:], strict=True)
        for codes, zero, ratio in others:
            total = torch.add(total, codes.float().sub_(zero), alpha=ratio)  # shapes may differ
        return total

    def _steps(self, i: int, codes: Tensor) -> Tensor:
        """Return one operand in steps of the output."""
        return codes.float().sub_(self.zero_points[i]).mul_(self.ratios[i])

    def _one(self, i: int, codes: Tensor) -> Tensor:
        if self.ratios[i] == 1 and self.zero_points[i] == self.zero_point:
            return codes
        return rounded_codes(self._steps(i, codes).add_(self.zero_point))


class Rest(Join):
    """What the rounding of a Join leaves."""

    def __init__(self, layer: q.QuantizedRest) -> None:
        """Take the scales of `layer`."""
        super().__init__(layer)
        self.rounded_zero_point = unsigned_zero(layer.rounded_zero_point)

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return the codes of what is left of the sum or concatenation; its own codes come first."""
        rounded, *operands = inputs
        parts = self._parts(tuple(operands))
        if self.dim is None:
            steps = self._sum(parts)
        else:
            steps = torch.cat([self._steps(i, codes) for i, codes in enumerate(parts)], self.dim)
        whole = rounded.float().sub_(self.rounded_zero_point)
        return rounded_codes(steps.sub_(whole, alpha=REST_STEPS).add_(self.zero_point))


class Clamp(nn.Module):
    """A ReLU or ReLU6 that no layer before it could take in."""

    def __init__(self, layer: q.ClampCodes) -> None:
        """Take the bounds of `layer`."""
        super().__init__()
        self.low, self.high = unsigned_zero(layer.low), unsigned_zero(layer.high)

    def forward(self, codes: Tensor) -> Tensor:
        """Return the clamped codes."""
        return codes.clamp(self.low, self.high)


class Function(nn.Module):
    """A function of single numbers, looked up."""

    table: Tensor

    def __init__(self, layer: q.QuantizedFunction) -> None:
        """Take the table of `layer`."""
        super().__init__()
        self.register_buffer("table", unsigned(layer.table))

    def forward(self, codes: Tensor) -> Tensor:
        """Return the function's codes."""
        return self.table[codes.int()]


class Repeated(nn.Module):
    """A constant that stands in each image."""

    held: Tensor

    def __init__(self, layer: q.RepeatedCodes) -> None:
        """Take the codes of `layer`."""
        super().__init__()
        self.register_buffer("held", unsigned(layer.held))
        self.axis = layer.axis

    def forward(self, images: Tensor) -> Tensor:
        """Return the codes for as many images, which a layer may write over."""
        return self.held.repeat_interleave(len(images), self.axis)


class Reference(nn.Module):
    """A layer that has no integer kernel for its operands, computed by the reference executor."""

    def __init__(self, layer: nn.Module) -> None:
        """Wrap `layer`, which reads and writes int8 codes."""
        super().__init__()
        self.layer = layer

    def forward(self, *inputs: Any) -> Tensor:
        """Return the layer's codes; inputs that are no tensors are sizes."""
        codes = [signed(x) if isinstance(x, Tensor) else x for x in inputs]
        outputs: Tensor = self.layer(*codes)
        if outputs.dtype != torch.int8:
            return outputs
        return unsigned(outputs)


def rounded_codes(steps: Tensor) -> Tensor:
    """Return the codes of numbers in steps of the output, its zero point included."""
    return steps.round_().clamp_(0, LARGEST).to(torch.uint8)
