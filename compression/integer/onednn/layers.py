"""Layers on torch's own oneDNN integer kernels: uint8 codes in, uint8 codes out, channels last.

A code here is the int8 code of the quantized network plus 128: the kernels multiply u8 by s8.
"""

from typing import Any

import torch
from torch import Tensor, nn

from compression.affine import INT8_MAX
from compression.integer.codes import LARGEST, OFFSET, signed, unsigned, unsigned_zero
from compression.integer.windows import pool_window, slide_of
from compression.quantization import modules as q

CACHED = 2**18
"""Numbers of a tensor that a core's cache holds beside what else it needs."""
_onednn: Any = torch.ops.onednn


def _scale(scale: Tensor | None) -> float:
    return 1.0 if scale is None else float(scale)


def largest_products(window: int, channels: int = 64) -> tuple[Tensor, int]:
    """Return a convolution of the largest codes, and what each of its outputs must be."""
    geometry = ([1, 1], [0, 0], [1, 1])
    scales, zeros = torch.ones(channels), torch.zeros(channels, dtype=torch.int32)
    codes = torch.full((1, channels, 8, 8), LARGEST, dtype=torch.uint8)
    codes = codes.contiguous(memory_format=torch.channels_last)
    weights = torch.full((channels, channels, window, window), INT8_MAX, dtype=torch.int8)
    packed = _onednn.qconv_prepack(weights, scales, 1.0, 0, *geometry, 1, list(codes.shape))
    outputs: Tensor = _onednn.qconv2d_pointwise.default(
        codes, 1.0, 0, packed, scales, zeros, None, *geometry, 1, 1.0, 0, torch.float32,
        "none", [], "",
    )  # fmt: skip
    return outputs, LARGEST * INT8_MAX * channels * window**2


class Quantize(nn.Module):
    """Real inputs -> codes, channels last."""

    def __init__(self, layer: q.Quantize) -> None:
        """Take the scale and zero point of `layer`."""
        super().__init__()
        self.scale, self.zero_point = (
            _scale(layer.output_scale),
            unsigned_zero(layer.output_zero_point),
        )

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the codes of `inputs`."""
        inputs = inputs.float()
        order = torch.channels_last if inputs.ndim == 4 else torch.contiguous_format
        codes = torch.empty_like(inputs, dtype=torch.uint8, memory_format=order)
        images = max(1, CACHED // max(1, inputs[:1].numel()))  # their steps stay in the cache
        for part, out in zip(inputs.split(images), codes.split(images), strict=True):
            out.copy_(torch.div(part, self.scale).round_().add_(self.zero_point).clamp_(0, LARGEST))
        return codes


class Dequantize(nn.Module):
    """Codes -> real outputs."""

    def __init__(self, layer: q.Dequantize) -> None:
        """Take the scale and zero point of `layer`."""
        super().__init__()
        self.scale, self.zero_point = _scale(layer.scale), unsigned_zero(layer.zero_point)

    def forward(self, codes: Tensor) -> Tensor:
        """Return the real numbers."""
        return codes.float().sub_(self.zero_point).mul_(self.scale)


class _Layer(nn.Module):
    """What the convolution and the linear layer share: weights, bias and requantization."""

    def __init__(self, layer: q.QuantizedLayer) -> None:
        super().__init__()
        self.x_scale, self.x_zero_point = (
            _scale(layer.input_scale),
            unsigned_zero(layer.input_zero_point),
        )
        self.y_scale = _scale(layer.output_scale)
        self.y_zero_point = unsigned_zero(layer.output_zero_point)
        self.y_dtype = torch.float32 if layer.output_scale is None else torch.uint8
        self.z_scale, self.z_zero_point = (
            _scale(layer.residual_scale),
            unsigned_zero(layer.residual_zero_point),
        )
        self.w_scale = layer.weight_scale.float().contiguous()
        self.w_zero_point = torch.zeros(len(self.w_scale), dtype=torch.int32)
        steps = layer.input_scale.double() * layer.weight_scale.double()
        self.bias = (layer.bias.double() * steps).float()


class Convolution(_Layer):
    """A convolution with bias, residual, ReLU and requantization in one kernel."""

    def __init__(self, layer: q.QuantizedLayer, shape: list[int], *, keep_residual: bool) -> None:
        """Pack the weights for inputs of `shape`; `keep_residual` spares the residual's memory."""
        super().__init__(layer)
        self.geometry = slide_of(layer)
        self.groups, self.keep_residual = layer.options["groups"], keep_residual
        self.packed = _onednn.qconv_prepack(
            layer.codes, self.w_scale, self.x_scale, self.x_zero_point, *self.geometry,
            self.groups, shape,
        )  # fmt: skip

    def forward(self, codes: Tensor, residual: Tensor | None = None) -> Tensor:
        """Return the codes, or real numbers of the network's last layer."""
        common = (
            self.bias, *self.geometry, self.groups, self.y_scale, self.y_zero_point, self.y_dtype,
        )  # fmt: skip
        inputs = (codes, self.x_scale, self.x_zero_point, self.packed, self.w_scale)
        if residual is None:
            outputs: Tensor = _onednn.qconv2d_pointwise.default(
                *inputs, self.w_zero_point, *common, "none", [], ""
            )
            return outputs
        last = residual.is_contiguous(memory_format=torch.channels_last)
        total = residual  # the kernel adds where the residual lies
        if self.keep_residual or not last:
            total = residual.clone(memory_format=torch.channels_last)
        _onednn.qconv2d_pointwise.binary(
            *inputs, self.w_zero_point, total, *common, self.z_scale, self.z_zero_point,
            "sum", 1.0, "none", [], "",
        )  # fmt: skip
        return total


class Linear(_Layer):
    """A linear layer with bias and requantization in one kernel."""

    def __init__(self, layer: q.QuantizedLayer, shape: list[int]) -> None:
        """Pack the weights for inputs of `shape`."""
        super().__init__(layer)
        self.packed = _onednn.qlinear_prepack(layer.codes, shape)

    def forward(self, codes: Tensor) -> Tensor:
        """Return the codes, or real numbers of the network's last layer."""
        outputs: Tensor = _onednn.qlinear_pointwise.default(
            codes, self.x_scale, self.x_zero_point, self.packed, self.w_scale, self.w_zero_point,
            self.bias, self.y_scale, self.y_zero_point, self.y_dtype, "none", [], "",
        )  # fmt: skip
        return outputs


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
        self.ratio = _scale(layer.input_scale) / _scale(layer.output_scale)
        self.x_zero_point = unsigned_zero(layer.input_zero_point)
        self.zero_point = unsigned_zero(layer.output_zero_point)

    def forward(self, codes: Tensor) -> Tensor:
        """Return the codes of the average; the pool pads with the real number 0."""
        if self.whole:
            means = codes.mean((-2, -1), keepdim=True, dtype=torch.float32).sub_(self.x_zero_point)
        else:
            means = self.layer.mean(codes.float().sub_(self.x_zero_point))
        return _codes(means.mul_(self.ratio).add_(self.zero_point))


class Join(nn.Module):
    """An addition that no layer could take in, or a concatenation."""

    def __init__(self, layer: q.QuantizedJoin) -> None:
        """Take the scales of `layer`."""
        super().__init__()
        out = _scale(layer.output_scale)
        self.ratios = [float(s) / out for s in layer.input_scales]
        self.zero_points = [int(z) + OFFSET for z in layer.input_zero_points]
        self.zero_point, self.dim = unsigned_zero(layer.output_zero_point), layer.dim

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return the codes of the sum or of the concatenation."""
        if self.dim is not None:
            return torch.cat([self._one(i, codes) for i, codes in enumerate(inputs)], self.dim)
        total = inputs[0].float().sub_(self.zero_points[0]).mul_(self.ratios[0])
        others = zip(inputs[1:], self.zero_points[1:], self.ratios[1:], strict=True)
        for codes, zero, ratio in others:
            total = torch.add(total, codes.float().sub_(zero), alpha=ratio)  # shapes may differ
        return _codes(total.add_(self.zero_point))

    def _one(self, i: int, codes: Tensor) -> Tensor:
        if self.ratios[i] == 1 and self.zero_points[i] == self.zero_point:
            return codes
        real = codes.float().sub_(self.zero_points[i]).mul_(self.ratios[i])
        return _codes(real.add_(self.zero_point))


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


def _codes(steps: Tensor) -> Tensor:
    return steps.round_().clamp_(0, LARGEST).to(torch.uint8)
