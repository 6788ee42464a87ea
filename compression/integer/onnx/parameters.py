"""The weights and biases of layers, and what codes stand for, as ONNX reads them."""

from typing import NamedTuple

import torch
from torch import Tensor

from compression.affine import TINY
from compression.integer.codes import OFFSET
from compression.integer.onnx.graph import Graph
from compression.quantization import modules as q


class Codes(NamedTuple):
    """The names of codes, their scale and their zero point, and what the latter two are."""

    names: tuple[str, str, str]
    scale: float
    zero_point: int

    def named(self, codes: str) -> "Codes":
        """Return the same of other codes."""
        return self._replace(names=(codes, *self.names[1:]))

    def real(self, code: int) -> float:
        """Return the number that an int8 code of the network stands for."""
        return (code + OFFSET - self.zero_point) * self.scale

    def table(self) -> Tensor:
        """Return the float32 number that each unsigned code stands for."""
        return (torch.arange(256) - self.zero_point) * torch.tensor(self.scale)


def is_of_pixels(layer: q.QuantizedLayer, shape: list[int]) -> bool:
    """Tell whether a linear layer is written as a convolution of images of one pixel.

    OpenVINO 2026.4 multiplies up to 15 rows wrongly where no bias differs from another and a linear
    layer follows.
    """
    biases = layer.bias * layer.weight_scale
    return layer.linear and len(shape) == 2 and bool((biases == biases[0]).all())


def weight(graph: Graph, layer: q.QuantizedLayer, shape: list[int]) -> str:
    """Write a layer's weights for inputs of this shape; return the name of their real numbers."""
    codes, groups = layer.codes, layer.options.get("groups", 1)
    if is_of_pixels(layer, shape):
        codes = codes.unsqueeze(2)
    if layer.linear and len(shape) > 2:
        return _dequantize(graph, codes.t(), layer.weight_scale, axis=1)
    if not layer.transposed or groups == 1:
        return _dequantize(graph, codes, layer.weight_scale, axis=int(layer.transposed))
    # Filters of all groups lie along one axis while they are scaled.
    apart = codes.unflatten(0, (groups, -1)).transpose(1, 2)
    real = _dequantize(graph, apart.flatten(0, 1), layer.weight_scale, axis=0)
    real = graph.node("Reshape", [real, graph.whole(*apart.shape)])
    order = [0, 2, 1, *range(3, apart.ndim)]
    real = graph.node("Transpose", [real], perm=order)
    return graph.node("Reshape", [real, graph.whole(*codes.shape)])


def bias(graph: Graph, layer: q.QuantizedLayer) -> str:
    """Write a layer's bias; return the name of its real numbers."""
    steps = layer.input_scale.double() * layer.weight_scale.double()
    coarse = steps < TINY  # too small a step for float32: a bias of none of it either
    bias = torch.where(coarse, (layer.bias * steps / TINY).round(), layer.bias.double())
    return _dequantize(graph, bias.int(), steps.float().clamp(min=TINY), axis=0)


def _dequantize(graph: Graph, codes: Tensor, scale: Tensor, *, axis: int) -> str:
    zeros = torch.zeros(len(scale), dtype=codes.dtype)
    names = [graph.constant(t) for t in (codes, scale, zeros)]
    return graph.node("DequantizeLinear", names, axis=axis)
