"""Layers on torch's own oneDNN integer kernels: uint8 codes in, uint8 codes out, channels last.

A code here is the int8 code of the quantized network plus 128: the kernels multiply u8 by s8.
"""

from typing import Any

import torch
from torch import Tensor, nn

from compression.affine import INT8_MAX
from compression.integer.codes import LARGEST, unsigned_zero
from compression.integer.onednn.pointwise import rounded_codes, scale_of
from compression.integer.windows import slide_of
from compression.quantization import modules as q

CACHED = 2**18
"""Numbers of a tensor that a core's cache holds beside what else it needs."""
_onednn: Any = torch.ops.onednn


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
            scale_of(layer.output_scale),
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
        self.scale, self.zero_point = scale_of(layer.scale), unsigned_zero(layer.zero_point)

    def forward(self, codes: Tensor) -> Tensor:
        """Return the real numbers."""
        return codes.float().sub_(self.zero_point).mul_(self.scale)


class _Layer(nn.Module):
    """What the convolution and the linear layer share: weights, bias and requantization."""

    def __init__(self, layer: q.QuantizedLayer) -> None:
        super().__init__()
        self.x_scale, self.x_zero_point = (
            scale_of(layer.input_scale),
            unsigned_zero(layer.input_zero_point),
        )
        self.y_scale = scale_of(layer.output_scale)
        self.y_zero_point = unsigned_zero(layer.output_zero_point)
        self.y_dtype = torch.float32 if layer.output_scale is None else torch.uint8
        self.z_scale, self.z_zero_point = (
            scale_of(layer.residual_scale),
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
        self.real = (1.0, 0, torch.float32)
        self.rounded = (self.y_scale, self.y_zero_point, self.y_dtype)

    def forward(self, codes: Tensor, residual: Tensor | None = None) -> Tensor:
        """Return the codes, or real numbers of the network's last layer."""
        outputs: Tensor = _onednn.qlinear_pointwise.default(
            codes, self.x_scale, self.x_zero_point, self.packed, self.w_scale, self.w_zero_point,
            self.bias, *(self.rounded if residual is None else self.real), "none", [], "",
        )  # fmt: skip
        if residual is None:
            return outputs
        outputs.add_(residual.float().sub_(self.z_zero_point), alpha=self.z_scale)
        if self.y_dtype == torch.float32:
            return outputs
        return rounded_codes(outputs.div_(self.y_scale).add_(self.y_zero_point))
