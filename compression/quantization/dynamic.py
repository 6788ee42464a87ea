"""Dynamic INT8: linear layers with integer weights, activations quantized at each call."""

from collections.abc import Collection

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compression.affine import INT8_MAX, INT8_MIN, TINY, choose_qparams, quantize
from compression.errors import CompressionError, UnsupportedTypeError
from compression.quantization.replacement import CodedLayer, Codes, replace_layers

KINDS = (nn.Linear,)
LONGEST_SUM = 2**16
"""Terms, each at most 255 x 127, whose sum an int32 surely holds."""


class DynamicQuantizedLinear(CodedLayer):
    """A linear layer in int8 x int8 -> int32: weights per output, activations per input row."""

    bias: Tensor | None

    def __init__(self, layer: nn.Linear, name: str, codes: Codes | None = None) -> None:
        """Quantize the weight of `layer`, or take its codes; the bias stays as it is."""
        if codes is None:
            qparams = choose_qparams(layer.weight, axis=0, name=f"{name}.weight".removeprefix("."))
            codes = quantize(layer.weight, qparams), qparams.scale
        super().__init__(codes, layer.weight)
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self.register_parameter("bias", layer.bias)

    @property
    def weight(self) -> Tensor:
        """What the codes stand for: some parents read a weight instead of calling its layer."""
        return (self.codes * self.scale[:, None]).to(self.like.dtype)

    def forward(self, input: Tensor) -> Tensor:  # torch's name: it may be passed by keyword
        """Return `input` (..., features) times the weight, plus the bias, in its dtype."""
        if input.is_nested:  # what nn.TransformerEncoder makes of a batch with a padding mask
            return torch.nested.as_nested_tensor([self(part) for part in input.unbind()])
        if not input.is_floating_point():
            raise UnsupportedTypeError(f"a linear layer expects real inputs, found {input.dtype}")
        if not input.ndim or input.shape[-1] != self.in_features:
            raise CompressionError(
                f"a linear layer of {self.in_features} inputs expects (..., {self.in_features}), "
                f"found the shape {tuple(input.shape)}"
            )
        outputs = self._products(input.reshape(-1, self.in_features).float())
        if self.bias is not None:
            outputs = outputs + self.bias
        return outputs.reshape(*input.shape[:-1], self.out_features).to(input.dtype)

    def _products(self, rows: Tensor) -> Tensor:
        if not len(rows):
            return rows.new_zeros(0, self.out_features)
        low, high = rows.amin(1, keepdim=True).clamp(max=0), rows.amax(1, keepdim=True).clamp(min=0)
        scale = (high / 255 - low / 255).clamp(min=TINY)
        zero_point = (INT8_MIN - torch.round(low / scale)).clamp(INT8_MIN, INT8_MAX)
        codes = (torch.round(rows / scale) + zero_point).clamp(INT8_MIN, INT8_MAX).to(torch.int8)
        parts = zip(codes.split(LONGEST_SUM, 1), self.codes.split(LONGEST_SUM, 1), strict=True)
        sums = [_centred_sums(*part, zero_point.int()).float() for part in parts]
        total = sums[0] if len(sums) == 1 else torch.stack(sums).sum(0)
        return total * (scale * self.scale)


def _centred_sums(codes: Tensor, weight: Tensor, zero_point: Tensor) -> Tensor:
    """Return the sums (int32) of the rows of `codes` less their zero points, times `weight`."""
    sums = integer_matmul(codes, weight.t())
    return sums - zero_point * weight.sum(dim=1, dtype=torch.int32)


def integer_matmul(left: Tensor, right: Tensor) -> Tensor:
    """Return the exact product (int32) of two int8 matrices."""
    if left.shape[1] == 1:  # torch 2.14's kernel for the CPU reads beyond such a matrix
        return left.int() * right.int()
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


def quantize_dynamic(model: nn.Module, *, keep: Collection[str] = ()) -> nn.Module:
    """Return a copy whose linear layers are INT8; convolutions stay in float, as in the paper's 4.5.

    Weights are symmetric per output channel, activations affine per row at run time, sums int32. The
    projections of attention are linear layers, too: nn.MultiheadAttention is written out as
    q_proj, k_proj, v_proj and out_proj around the same products, whose arithmetic stays in float.
    What stays in float is listed by left_out: other layers, subclasses of nn.Linear and of attention,
    those with hooks, and those whose dotted names are in `keep`. CompressionError where that is every
    layer.

    >>> small = quantize_dynamic(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)))
    >>> small[0].codes.dtype, small(torch.zeros(3, 4)).shape
    (torch.int8, torch.Size([3, 2]))
    """
    return make_dynamic(model, keep=keep)


def make_dynamic(
    model: nn.Module, *, keep: Collection[str] = (), attention: Collection[str] | None = None
) -> nn.Module:
    """Return what quantize_dynamic does, with the attention at these names alone written out."""
    quantized = replace_layers(
        model,
        KINDS,
        DynamicQuantizedLinear,
        verb="dynamic quantization",
        keep=keep,
        attention=attention,
    )
    for module in quantized.modules():
        if isinstance(module, nn.TransformerEncoderLayer):
            # Its fast path reads its linear layers' weights instead of calling them.
            module.activation_relu_or_gelu = 0
    return quantized
