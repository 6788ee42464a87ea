"""LayerNorm and attention, as ONNX says them: on real numbers, between QDQ nodes."""

import torch
from torch import Tensor

from compression.integer.onnx.graph import Graph
from compression.quantization import modules as q


def normalize(graph: Graph, layer: q.QuantizedLayerNorm, real: str) -> str:
    """Write a LayerNorm of `real`."""
    names = [graph.constant(part.expand(layer.shape)) for part in (layer.weight, layer.bias)]
    return graph.node(
        "LayerNormalization", [real, *names], axis=-layer.dims, epsilon=float(layer.eps)
    )


def attend(
    graph: Graph, layer: q.QuantizedAttention, reals: list[str], shapes: list[list[int]]
) -> str:
    """Write the attention of queries, keys and values of these shapes."""
    query, key, value = reals
    (*_, queries, channels), keys = shapes[0], shapes[1][-2]
    order = list(range(len(shapes[1])))
    columns = graph.node("Transpose", [key], perm=[*order[:-2], order[-1], order[-2]])
    scores = graph.node("MatMul", [query, columns])
    scores = graph.node("Mul", [scores, graph.constant(torch.tensor(layer.factor(channels)))])
    mask = layer.mask_steps(channels, queries, keys)
    if mask is not None:
        added = (mask.double() * layer.unit(channels)).float()
        scores = graph.node("Add", [scores, graph.constant(added)])
    shares = graph.node("Softmax", [scores], axis=-1)
    return graph.node("MatMul", [shares, value])


def held(graph: Graph, layer: q.QuantizedJoin | q.QuantizedProduct, codes: Tensor) -> str:
    """Write the real numbers of codes that a layer holds."""
    place = next(i for i in layer.held_places if layer.get_buffer(f"held{i}") is codes)
    names = [
        graph.constant(part)
        for part in (
            codes,
            layer.input_scales[place],
            layer.input_zero_points[place].to(torch.int8),
        )
    ]
    return graph.node("DequantizeLinear", names)


def each_image(graph: Graph, constant: str, codes: Tensor, like: str) -> str:
    """Repeat a constant of one image for each image of `like`."""
    size = graph.node("Shape", [like], start=0, end=1)
    whole = graph.node("Concat", [size, graph.whole(*codes.shape[1:])], axis=0)
    return graph.node("Expand", [constant, whole])
