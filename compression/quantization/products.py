"""Products in int8 x int8 -> int32: weights per output channel, activations row by row."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from compression.affine import INT8_MAX, INT8_MIN, TINY, choose_qparams, quantize
from compression.quantization.replacement import CodedLayer, Codes

LONGEST_SUM = 2**16
"""Terms, each at most 255 x 127, whose sum an int32 surely holds."""


class DynamicWeight(CodedLayer):
    """Int8 codes of a weight (outputs, inputs), and its products with rows quantized at each call."""

    def __init__(self, weight: Tensor, name: str, codes: Codes | None = None) -> None:
        """Quantize the `weight` of this name per output, or take its codes."""
        if codes is None:
            qparams = choose_qparams(weight, axis=0, name=name.removeprefix("."))
            codes = quantize(weight, qparams), qparams.scale
        super().__init__(codes, weight)
        self.out_features, self.in_features = weight.shape

    @property
    def weight(self) -> Tensor:
        """What the codes stand for: some parents read a weight instead of calling its layer."""
        return (self.codes * self.scale[:, None]).to(self.like.dtype)

    def sums(self) -> list[Tensor]:
        """Return the sums (int32) of each output's codes, part by part of LONGEST_SUM inputs."""
        parts = self.codes.split(LONGEST_SUM, 1)
        return [part.sum(dim=1, dtype=torch.int32) for part in parts]

    def products(self, rows: Tensor, weight_sums: Sequence[Tensor] | None = None) -> Tensor:
        """Return `rows` (rows, inputs), float32, times the weight; `weight_sums` are `sums()`."""
        if not len(rows):
            return rows.new_zeros(0, self.out_features)
        low, high = rows.amin(1, keepdim=True).clamp(max=0), rows.amax(1, keepdim=True).clamp(min=0)
        scale = (high / 255 - low / 255).clamp(min=TINY)
        zero_point = (INT8_MIN - torch.round(low / scale)).clamp(INT8_MIN, INT8_MAX)
        codes = (torch.round(rows / scale) + zero_point).clamp(INT8_MIN, INT8_MAX).to(torch.int8)
        splits = codes.split(LONGEST_SUM, 1), self.codes.split(LONGEST_SUM, 1)
        parts = zip(*splits, weight_sums or self.sums(), strict=True)
        sums = [_centred_sums(*part, zero_point.int()).float() for part in parts]
        total = sums[0] if len(sums) == 1 else torch.stack(sums).sum(0)
        return total * (scale * self.scale)


def _centred_sums(codes: Tensor, weight: Tensor, sums: Tensor, zero_point: Tensor) -> Tensor:
    """Return the sums (int32) of the rows of `codes` less their zero points, times `weight`."""
    return integer_matmul(codes, weight.t()) - zero_point * sums


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
