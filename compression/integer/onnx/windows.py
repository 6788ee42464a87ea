"""Layers that slide a window, as ONNX says them: only what every engine computes alike is used.

Engines differ where an average reads its border and where ceil_mode adds a window, so that borders
are written out as numbers and divisors as factors.
"""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compression.errors import UnsupportedTypeError
from compression.integer.onnx.graph import Graph
from compression.integer.windows import POOL_DIMS, each, padding_of, pool_window
from compression.quantization import modules as q

MOST_FACTORS = 2**24
"""Numbers of the matrix that an uneven average becomes."""
Names = tuple[str, str, str]
"""The names of codes, their scale and their zero point."""
_AVERAGES = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}


def convolution(graph: Graph, layer: q.QuantizedLayer, inputs: list[str]) -> str:
    """Write a convolution of (input, weight, bias)."""
    dims = layer.codes.ndim - 2
    before, after = padding_of(layer)
    options = {name: each(layer.options[name], dims) for name in ("stride", "dilation")}
    attributes: dict[str, Any] = {
        "group": layer.options["groups"], "strides": options["stride"],
        "dilations": options["dilation"], "pads": [*before, *after],
    }  # fmt: skip
    if layer.transposed:
        attributes["output_padding"] = each(layer.options["output_padding"], dims)
    return graph.node("ConvTranspose" if layer.transposed else "Conv", inputs, **attributes)


def average(
    graph: Graph, pool: nn.Module, codes: Names, before: list[int], after: list[int]
) -> str:
    """Write the average, in real numbers, of codes of the shape `before`, (1, ...) of an image."""
    if isinstance(pool, q.MeanOver):
        axes = sorted(d % len(before) for d in pool.dims)
        inputs = [_read(graph, codes), graph.whole(*axes)]
        return graph.node("ReduceMean", inputs, keepdims=int(pool.keepdim))
    dims = _dims(pool)
    sides, outputs = before[-dims:], after[-dims:]
    if hasattr(pool, "output_size") and not _divide(sides, outputs):
        return _linear(graph, pool, codes, before, after)
    kernel, stride, padding = _average_window(pool, sides, outputs)
    ends = _ends(sides, outputs, kernel, stride, padding)
    real = _read(
        graph, _pad(graph, _as_images(graph, codes, before, dims), padding, ends, codes[2])
    )
    factors = _factors(pool, sides, outputs, kernel, stride, (padding, ends))
    window = {"kernel_shape": _image(kernel, 1), "strides": _image(stride, 1)}
    if factors.numel() == 1:
        real = graph.node("AveragePool", [real], **window)
    else:  # OpenVINO would round an average to codes before it is multiplied
        filters = torch.ones(math.prod(before[1:-dims]), 1, *_image(kernel, 1)) / math.prod(kernel)
        inputs = [real, graph.constant(filters)]
        real = graph.node("Conv", inputs, group=len(filters), **window)
    if not bool((factors == 1).all()):
        real = graph.node("Mul", [real, graph.constant(factors)])
    return graph.reshape(real, after) if _is_reshaped(before, dims) else real


def maximum(graph: Graph, pool: Any, codes: Names, before: list[int], after: list[int]) -> str:
    """Write the max-pool, in real numbers, of codes of the shape `before`, (1, ...) of an image."""
    dims = _dims(pool)
    sides, outputs = before[-dims:], after[-dims:]
    if hasattr(pool, "output_size"):
        if not _divide(sides, outputs):
            return _uneven_maximum(graph, _read(graph, codes), before, after, dims)
        kernel = stride = [n // m for n, m in zip(sides, outputs, strict=True)]
        padding, dilation = [0] * dims, [1] * dims
    else:
        kernel, stride, padding, dilation = pool_window(pool)
    spans = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
    pads, codes = _image(padding, 0) * 2, _as_images(graph, codes, before, dims)
    if getattr(pool, "ceil_mode", False):
        ends = _ends(sides, outputs, spans, stride, padding)
        pads, lowest = [0] * len(pads), graph.constant(np.uint8(0))
        codes = _pad(graph, codes, padding, ends, lowest)
    real = graph.node(
        "MaxPool", [_read(graph, codes)], kernel_shape=_image(kernel, 1), pads=pads,
        strides=_image(stride, 1), dilations=_image(dilation, 1),
    )  # fmt: skip
    return graph.reshape(real, after) if _is_reshaped(before, dims) else real


def interpolation(graph: Graph, real: str, matrices: list[Tensor], before: list[int]) -> str:
    """Write the products of an image (1, C, ...) of the shape `before` with a matrix for each side.

    Engines differ in how they resize; a product they all compute.
    """
    shape = [*before]
    for axis, matrix in enumerate(matrices, start=2):
        if matrix.numel() > MOST_FACTORS:
            raise UnsupportedTypeError(
                f"ONNX has no interpolation of {before[2:]} by matrices beyond {MOST_FACTORS} numbers"
            )
        lead, rest = math.prod(shape[1:axis]), math.prod(shape[axis + 1 :])
        real = graph.reshape(real, [1, lead, shape[axis], rest])
        real = graph.node("MatMul", [graph.constant(matrix), real])
        shape[axis] = len(matrix)
    return graph.reshape(real, shape)


def _dims(pool: nn.Module) -> int:
    if type(pool) not in POOL_DIMS:
        raise UnsupportedTypeError(f"ONNX's QDQ form has no {type(pool).__name__}")
    return POOL_DIMS[type(pool)]


def _divide(sides: list[int], outputs: list[int]) -> bool:
    """Tell whether an adaptive pool's windows are all of one size."""
    return not any(n % m for n, m in zip(sides, outputs, strict=True))


def _average_window(pool: Any, sides: list[int], outputs: list[int]) -> list[list[int]]:
    """Return an average's size, stride and padding, each of all dimensions."""
    if hasattr(pool, "output_size"):
        size = [n // m for n, m in zip(sides, outputs, strict=True)]
        return [size, size, [0] * len(sides)]
    return [each(v, len(sides)) for v in (pool.kernel_size, pool.stride, pool.padding)]


def _read(graph: Graph, codes: Names) -> str:
    return graph.node("DequantizeLinear", list(codes))


def _image(setting: list[int], one: int) -> list[int]:
    """Return a setting for images: a signal is pooled as an image of one row.

    OpenVINO 2026.4 computes the border of a signal wrong, and that of an image right.
    """
    return [one, *setting] if len(setting) == 1 else setting


def _is_reshaped(before: list[int], dims: int) -> bool:
    return len(before) != dims + 2 or dims == 1


def _as_images(graph: Graph, codes: Names, before: list[int], dims: int) -> Names:
    """Return codes as images with one dimension of channels, whatever stands before their sides."""
    if not _is_reshaped(before, dims):
        return codes
    shape = [1, math.prod(before[1:-dims]), *_image(before[-dims:], 1)]
    return graph.reshape(codes[0], shape), *codes[1:]


def _ends(
    sides: list[int], outputs: list[int], spans: list[int], stride: list[int], padding: list[int]
) -> list[int]:
    """Return how far the last window of each dimension reaches beyond the image."""
    rows = zip(sides, outputs, spans, stride, padding, strict=True)
    return [max(0, (m - 1) * step + span - n - p) for n, m, span, step, p in rows]


def _pad(graph: Graph, codes: Names, before: list[int], after: list[int], code: str) -> Names:
    """Return codes within a border: OpenVINO fuses one of real numbers into the pool, as codes 0."""
    if not any([*before, *after]):
        return codes
    pads = graph.whole(0, 0, *_image(before, 0), 0, 0, *_image(after, 0))
    return graph.node("Pad", [codes[0], pads, code]), *codes[1:]


def _factors(
    pool: nn.Module,
    sides: list[int],
    outputs: list[int],
    kernel: list[int],
    stride: list[int],
    borders: tuple[list[int], list[int]],
) -> Tensor:
    """Return what a plain average of each window is multiplied by: one number where all are alike."""
    ones = torch.ones(1, 1, *sides, dtype=torch.float64)
    # F.pad counts from the last dimension.
    pads = [p for pair in reversed(list(zip(*borders, strict=True))) for p in pair]
    plain = _AVERAGES[len(sides)](F.pad(ones, pads), kernel, stride)
    factors: Tensor = (pool(ones) / plain).float()
    if bool((factors == factors.flatten()[0]).all()):
        return factors.flatten()[0]
    return factors.reshape(1, 1, *_image(outputs, 1))


def _linear(
    graph: Graph, pool: nn.Module, codes: Names, before: list[int], after: list[int]
) -> str:
    """Write any linear function of an image's sides as the product with its matrix."""
    dims = _dims(pool)
    lead, sides, outputs = before[1:-dims], before[-dims:], after[-dims:]
    count, made = math.prod(sides), math.prod(outputs)
    if count * made > MOST_FACTORS:
        raise UnsupportedTypeError(
            f"ONNX has no average of {sides} into {outputs} pixels: expected sizes that divide"
        )
    units = torch.eye(count, dtype=torch.float64).view(count, 1, *sides)
    matrix: Tensor = pool(units).reshape(count, made).float()
    flat = graph.reshape(_read(graph, codes), [1, *lead, count])
    return graph.reshape(graph.node("MatMul", [flat, graph.constant(matrix)]), after)


def _uneven_maximum(graph: Graph, real: str, before: list[int], after: list[int], dims: int) -> str:
    """Write an adaptive max-pool: side by side, windows are gathered and their largest taken."""
    for axis in range(len(before) - dims, len(before)):
        size, count = before[axis], after[axis]
        spans = [(i * size // count, -(-(i + 1) * size // count)) for i in range(count)]
        longest = max(end - start for start, end in spans)
        # A short window repeats its last number.
        taken = [[min(start + k, end - 1) for k in range(longest)] for start, end in spans]
        real = graph.node("Gather", [real, graph.constant(torch.tensor(taken))], axis=axis)
        real = graph.node("ReduceMax", [real, graph.whole(axis + 1)], keepdims=0)
    return real
