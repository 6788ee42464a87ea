"""Networks that hold their images elsewhere than first between some layers: put first for these.

An executor's memory is one image after the other. nn.MultiheadAttention without `batch_first`, and
who writes as it does, have tokens first, (tokens, images, channels); attention in windows has those
of all images along one axis.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from compression.integer.shapes import Shapes, is_move
from compression.quantization import StaticQuantizedModel
from compression.quantization import modules as q
from compression.quantization.codes import CodesOfSeveral

_POINTWISE = (
    q.Quantize, q.Dequantize, q.ClampCodes, q.QuantizedFunction, q.QuantizedAffine, q.RealSum,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Images:
    """Where a value holds its images: along `axis`, or `each` rows of the first axis are one's."""

    axis: int
    each: int = 1

    @property
    def first(self) -> bool:
        """Whether they are first, and alone there."""
        return self.axis == 0 and self.each == 1

    def moved(self, dim: int) -> int:
        """Return which axis `dim` is once the images are first; 0 for their own."""
        if self.each > 1:
            return dim + 1 if dim else 0
        return 0 if dim == self.axis else dim + (dim < self.axis)

    def put_first(self) -> tuple[Any, ...]:
        """Return the method that puts them first, and its arguments."""
        return ("unflatten", 0, (-1, self.each)) if self.each > 1 else ("movedim", self.axis, 0)

    def put_back(self) -> tuple[Any, ...]:
        """Return the method that puts them where they were, and its arguments."""
        return ("flatten", 0, 1) if self.each > 1 else ("movedim", 0, self.axis)

    def beside(self, constant: Tensor, rank: int) -> Tensor | None:
        """Return what stands beside values of `rank` axes as it does beside these, images first."""
        constant = constant[(None,) * (rank - constant.ndim)]
        if self.each > 1:
            return constant.unsqueeze(0) if len(constant) == 1 else None
        return constant.movedim(self.axis, 0)


@torch.no_grad()
def images_first(model: StaticQuantizedModel, example: Tensor) -> StaticQuantizedModel:
    """Return the network with images first wherever a layer computes; `model` where they are already.

    Each layer that reads images shaped like the example's elsewhere finds them first, and what it
    gives is put back: moves, which executors compose. The outputs stay what they are. A layer that
    mixes images (a normalization over them) stays as it is.
    """
    try:
        one, two = (_shapes(model, torch.cat([example[:1]] * count)) for count in (1, 2))
    except Exception:  # of inputs that are not the network's own: executors say so
        return model
    places = {node: _images(shape, two.get(node, shape)) for node, shape in one.items()}
    turned = {
        node: layer
        for node in model.network.graph.nodes
        if node.op == "call_module" and not is_move(model.network, node)
        if (layer := _turned(model.network.get_submodule(str(node.target)), node, places, one))
    }
    if not turned:
        return model
    return StaticQuantizedModel(_rewritten(model.network, turned, places), model.shown).eval()


def _shapes(model: StaticQuantizedModel, inputs: Tensor) -> dict[fx.Node, list[int]]:
    run = Shapes(model.network)
    run.run(inputs)
    return run.shapes


def _images(one: list[int], two: list[int]) -> _Images | None:
    """Return where a value holds its images, None where that is not along one axis."""
    if len(one) != len(two):
        return None
    others = [i for i, pair in enumerate(zip(one, two, strict=True)) if pair[0] != pair[1]]
    if len(others) != 1 or two[others[0]] != 2 * one[others[0]]:
        return None
    (axis,) = others
    if one[axis] == 1:
        return _Images(axis)
    return _Images(0, one[0]) if axis == 0 else None


def _turned(
    layer: nn.Module,
    node: fx.Node,
    places: dict[fx.Node, _Images | None],
    shapes: dict[fx.Node, list[int]],
) -> nn.Module | None:
    """Return the layer that does with images first what `layer` does; None where it stays."""
    if isinstance(layer, q.RepeatedCodes):
        return _repeated(layer, places.get(node))
    sources = node.all_input_nodes
    rank = len(shapes[sources[0]]) if sources and sources[0] in shapes else 0
    found = {places.get(source) for source in sources}
    same = len(found) == 1 and all(len(shapes[source]) == rank for source in sources)
    images = found.pop() if same else None
    if images is None or images.first or places.get(node) is None:
        return None
    match layer:
        case q.QuantizedLayer():
            return layer if layer.linear and images.axis < rank - 1 else None
        case q.QuantizedLayerNorm():
            return layer if images.axis < rank - layer.dims else None
        case q.QuantizedAttention():
            return layer if images.each > 1 and rank > 2 else None
        case q.QuantizedMean(pool=q.MeanOver(dims=dims, keepdim=keepdim)) if dims:
            over = tuple(images.moved(dim % rank) for dim in dims)
            return None if 0 in over else _with(layer, pool=q.MeanOver(over, keepdim=keepdim))
        case q.QuantizedJoin(dim=int(dim)):
            along = images.moved(dim % rank)
            return _held(layer, rank, images, dim=along) if along else None
        case q.QuantizedJoin() | q.QuantizedProduct():
            return _held(layer, rank, images)
    return layer if isinstance(layer, _POINTWISE) else None


def _repeated(layer: q.RepeatedCodes, images: _Images | None) -> nn.Module | None:
    """Return the constant with images first, None where it has them so."""
    if images is None or images.first or images.each > 1:
        return None
    return _with(layer, held=layer.held.movedim(images.axis, 0), axis=0)


def _with(layer: nn.Module, **attributes: Any) -> nn.Module:
    """Return a copy that shares its tensors, some attributes others."""
    other = copy.copy(layer)
    other._buffers, other._modules = {**layer._buffers}, {**layer._modules}
    for name, value in attributes.items():
        setattr(other, name, value)
    return other


def _held(layer: CodesOfSeveral, rank: int, images: _Images, **attributes: Any) -> nn.Module | None:
    """Return the layer with the constants that stand in each image as they are beside such images."""
    held = {f"held{i}": layer.get_buffer(f"held{i}") for i in layer.held_places}
    turned = {name: images.beside(codes, rank) for name, codes in held.items()}
    return None if None in turned.values() else _with(layer, **turned, **attributes)


def _rewritten(
    network: fx.GraphModule,
    turned: dict[fx.Node, nn.Module],
    places: dict[fx.Node, _Images | None],
) -> fx.GraphModule:
    """Return the network with these layers in place of its own, moves before and after each."""
    graph, values = fx.Graph(), dict[fx.Node, fx.Node]()

    def first(source: fx.Node) -> fx.Node:
        name, *arguments = _known(places, source).put_first()
        return graph.call_method(name, (values[source], *arguments))

    for node in network.graph.nodes:
        given: Callable[[fx.Node], fx.Node] = first if node in turned else values.__getitem__
        values[node] = graph.node_copy(node, given)
        if node in turned and not _known(places, node).first:
            name, *arguments = _known(places, node).put_back()
            values[node] = graph.call_method(name, (values[node], *arguments))
    rewritten = fx.GraphModule(network, graph)
    for node, layer in turned.items():
        rewritten.set_submodule(str(node.target), layer)
    return rewritten


def _known(places: dict[fx.Node, _Images | None], node: fx.Node) -> _Images:
    found = places[node]
    assert found is not None
    return found
