"""Dynamic INT8: linear layers with integer weights, activations quantized at each call."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compression.affine import TINY, choose_qparams, quantize
from compression.errors import CompressionError
from compression.layers import check_model, copy_model, replace_layer


class DynamicQuantizedLinear(nn.Module):
    """A linear layer in int8 x int8 -> int32: weights per output, activations per input row."""

    parameter_buffers = ("codes",)
    bias: Tensor | None
    codes: Tensor
    scale: Tensor

    def __init__(self, layer: nn.Linear, name: str) -> None:
        """Quantize the weight of `layer`; its bias stays in float32."""
        super().__init__()
        qparams = choose_qparams(layer.weight, axis=0, name=f"{name}.weight")
        codes = quantize(layer.weight, qparams)
        self.register_buffer("codes", codes)
        self.register_buffer("scale", qparams.scale)
        self.register_parameter("bias", layer.bias)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return inputs (..., features) times the weight, plus the bias, float32."""
        rows = inputs.reshape(-1, inputs.shape[-1]).float()
        low, high = rows.amin(1, keepdim=True).clamp(max=0), rows.amax(1, keepdim=True).clamp(min=0)
        scale = (high / 255 - low / 255).clamp(min=TINY)
        zero_point = (-128 - torch.round(low / scale)).clamp(-128, 127)
        codes = (torch.round(rows / scale) + zero_point).clamp(-128, 127).to(torch.int8)
        sums = integer_matmul(codes, self.codes.t())
        sums = sums - zero_point.int() * self.codes.sum(dim=1, dtype=torch.int32)
        outputs = sums.float() * (scale * self.scale)
        if self.bias is not None:
            outputs = outputs + self.bias
        return outputs.reshape(*inputs.shape[:-1], -1)


def integer_matmul(left: Tensor, right: Tensor) -> Tensor:
    """Return the exact product (int32) of two int8 matrices."""
    if left.device.type == "cpu":
        return torch._int_mm(left, right)
    return padded_matmul(left, right)


def padded_matmul(left: Tensor, right: Tensor) -> Tensor:
    """Return integer_matmul in the shapes that cuBLAS takes: over 16 rows, the rest multiples of 8."""
    rows, columns, inner = len(left), right.shape[1], left.shape[1]
    deep = -inner % 8
    wide_left = F.pad(left, (0, deep, 0, max(0, 17 - rows)))
    wide_right = F.pad(right, (0, -columns % 8, 0, deep))
    return torch._int_mm(wide_left, wide_right)[:rows, :columns]


def quantize_dynamic(model: nn.Module) -> nn.Module:
    """Return a copy whose linear layers are INT8; convolutions stay in float, as in the paper's 4.5.

    Weights symmetric per output channel, activations affine per row at run time, sums in int32.
    """
    check_model(model)
    quantized = copy_model(model).eval()
    linear = {n: m for n, m in quantized.named_modules() if type(m) is nn.Linear}
    if not linear:
        raise CompressionError(
            "dynamic quantization covers nn.Linear only and the model has none; use quantize_static"
        )
    if "" in linear:
        return DynamicQuantizedLinear(linear[""], "weight")
    for name, layer in linear.items():
        replace_layer(quantized, name, DynamicQuantizedLinear(layer, name))
    return quantized
