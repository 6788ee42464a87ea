"""Networks that hold their images elsewhere than first between some layers: put first for these.

An executor's memory is one image after the other. nn.MultiheadAttention without `batch_first`, and
who writes as it does, have tokens first: (tokens, images, channels).
"""

import copy
from typing import Any

import torch
from torch import Tensor, fx, nn

from compression.integer.shapes import Shapes, is_move
from compression.quantization import StaticQuantizedModel
from compression.quantization import modules as q
from compression.quantization.codes import CodesOfSeveral

_POINTWISE = (q.Quantize, q.Dequantize, q.ClampCodes, q.QuantizedFunction, q.QuantizedAffine)


@torch.no_grad()
def images_first(model: StaticQuantizedModel, example: Tensor) -> StaticQuantizedModel:
    """Return the network with images first wherever a layer computes; `model` where they are already.

    Each layer that reads images shaped like the example's elsewhere finds them first, and what it
    gives is put back: moves, which executors compose. The outputs stay what they are. A layer that
    mixes images (a normalization over them) stays as it is.
    """
    try:
        one, two = (_shapes(model, torch.cat([example[:1]] * count)) for count in (1, 2))
    except (
        Exception
    ):  # whatever a network raises for inputs that are not its own; executors tell it
        return model
    axes = {node: _images_axis(shape, two.get(node, shape)) for node, shape in one.items()}
    turned = {
        node: layer
        for node in model.network.graph.nodes
        if node.op == "call_module" and not is_move(model.network, node)
        if (layer := _turned(model.network.get_submodule(str(node.target)), node, axes, one))
    }
    if not turned:
        return model
    network = _rewritten(model.network, turned, axes)
    return StaticQuantizedModel(network, model.shown).eval()


def _shapes(model: StaticQuantizedModel, inputs: Tensor) -> dict[fx.Node, list[int]]:
    run = Shapes(model.network)
    run.run(inputs)
    return run.shapes


def _images_axis(one: list[int], two: list[int]) -> int | None:
    """Return the axis along which a value holds its images, None where that is not one axis."""
    if len(one) != len(two):
        return None
    others = [i for i, pair in enumerate(zip(one, two, strict=True)) if pair[0] != pair[1]]
    return others[0] if len(others) == 1 and one[others[0]] == 1 else None


def _turned(
    layer: nn.Module,
    node: fx.Node,
    axes: dict[fx.Node, int | None],
    shapes: dict[fx.Node, list[int]],
) -> nn.Module | None:
    """Return the layer that does with images first what `layer` does; None where it stays."""
    sources = node.all_input_nodes
    found = {axes.get(source) for source in sources}
    rank = len(shapes[sources[0]]) if sources and sources[0] in shapes else 0
    same = len(found) == 1 and all(len(shapes[source]) == rank for source in sources)
    axis = found.pop() if same else None
    if not axis or axes.get(node) is None:  # first already, or nowhere
        return None
    match layer:
        case q.QuantizedLayer():
            return layer if layer.linear and axis < rank - 1 else None
        case q.QuantizedLayerNorm():
            return layer if axis < rank - layer.dims else None
        case q.QuantizedMean(pool=q.MeanOver(dims=dims, keepdim=keepdim)) if dims:
            over = tuple(_moved(dim % rank, axis) for dim in dims)
            return None if 0 in over else _with(layer, pool=q.MeanOver(over, keepdim=keepdim))
        case q.QuantizedJoin(dim=int(dim)):
            return (
                None
                if dim % rank == axis
                else _held(layer, rank, axis, dim=_moved(dim % rank, axis))
            )
        case q.QuantizedJoin() | q.QuantizedProduct():
            return _held(layer, rank, axis)
    return layer if isinstance(layer, _POINTWISE) else None


def _moved(dim: int, axis: int) -> int:
    """Return where axis `dim` is once `axis` is the first."""
    return 0 if dim == axis else dim + (dim < axis)


def _with(layer: nn.Module, **attributes: Any) -> nn.Module:
    """Return a copy that shares its tensors, some attributes others."""
    other = copy.copy(layer)
    other._buffers, other._modules = {**layer._buffers}, {**layer._modules}
    for name, value in attributes.items():
        setattr(other, name, value)
    return other


def _held(layer: CodesOfSeveral, rank: int, axis: int, **attributes: Any) -> nn.Module:
    """Return the layer with the constants that stand in each image as they are beside such images."""
    held = {f"held{i}": layer.get_buffer(f"held{i}") for i in layer.held_places}
    turned = {
        name: codes[(None,) * (rank - codes.ndim)].movedim(axis, 0) for name, codes in held.items()
    }
    return _with(layer, **turned, **attributes)


def _rewritten(
    network: fx.GraphModule, turned: dict[fx.Node, nn.Module], axes: dict[fx.Node, int | None]
) -> fx.GraphModule:
    """Return the network with these layers in place of its own, moves before and after each."""
    graph, values = fx.Graph(), dict[fx.Node, fx.Node]()

    def first(source: fx.Node) -> fx.Node:
        return graph.call_method("movedim", (values[source], axes[source], 0))

    for node in network.graph.nodes:
        values[node] = graph.node_copy(node, first if node in turned else values.__getitem__)
        if axes.get(node) and node in turned:
            values[node] = graph.call_method("movedim", (values[node], 0, axes[node]))
    rewritten = fx.GraphModule(network, graph)
    for node, layer in turned.items():
        rewritten.set_submodule(str(node.target), layer)
    return rewritten
