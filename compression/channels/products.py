"""Products of two values: matrices, and attention."""

from typing import Any

import torch
from torch import Tensor, fx

from compression.channels.values import Value
from compression.channels.walk import Pair, Walk, name_of

MATRICES = frozenset(["matmul", "bmm", "mm"])
ATTENTION = "scaled_dot_product_attention"
INPUTS = ("query", "key", "value", "attn_mask")


def product(walk: Walk, node: fx.Node) -> Value | None:
    """Return what a product of values gives; None for another operator."""
    name = name_of(node.target)
    if name in MATRICES and len(walk.inputs(node)) == 2:
        return _matrices(walk, node, *walk.inputs(node))
    if name == ATTENTION:
        given = [*node.args, *(node.kwargs.get(name) for name in INPUTS[len(node.args) :])]
        found = [walk.values.get(x) for x in given[:3] if isinstance(x, fx.Node)]
        inputs = [value for value in found if isinstance(value, Value)]
        return _attention(walk, node, inputs, given[3]) if len(inputs) == 3 else None
    return None


def _matrices(walk: Walk, node: fx.Node, first: Value, second: Value) -> Value:
    """Unite what is summed over; rows, columns and the batch keep their labels."""
    shape = walk.shape(node)
    if min(len(first.shape), len(second.shape)) < 2:
        walk.freeze(node, "a product with a vector", first, second)
        return Value(shape)
    ndim = len(shape)
    first, second = first.widened(ndim), second.widened(ndim)
    rows, columns = ndim - 2, ndim - 1
    if first.axis == columns or second.axis == rows:
        _sum_over(walk, node, first, second)
        walk.unite(node, first.along(columns), second.along(rows))
    kept = [v for v, summed in ((first, columns), (second, rows)) if v.axis not in (None, summed)]
    found = _of_axes(walk, node, shape, kept)
    _count(walk, shape, first.shape[columns], [found.labels, first.along(columns)])
    return found


def _count(walk: Walk, shape: tuple[int, ...], summed: int, sides: list[Tensor | None]) -> None:
    """Note the multiply-accumulates of sums that give a tensor of `shape`."""
    labels = tuple(side for side in sides if side is not None and bool(side.any()))
    if labels:
        macs = int(torch.Size(shape).numel()) * summed
        walk.channels.pairs.append(Pair(macs, labels))


def _sum_over(walk: Walk, node: fx.Node, first: Value, second: Value) -> None:
    """Let channels stay that are summed over though those of zeros may count."""
    if not (first.vanishes or second.vanishes):
        walk.freeze(
            node, "a sum over channels that are not 0 where their weights are", first, second
        )


def _of_axes(walk: Walk, node: fx.Node, shape: tuple[int, ...], kept: list[Value]) -> Value:
    """Return the value with the labels of what is multiplied: those of one axis, the others stay."""
    if not kept:
        return Value(shape)
    first, *others = sorted(kept, key=lambda value: value.channels[0])
    axis, labels = first.channels
    for other in others:
        if other.axis == axis:
            walk.unite(node, labels, other.channels[1])
        else:
            walk.freeze(node, "its channels lie along two axes", other)
    factors = [v.widened(len(shape)) for v in walk.inputs(node)]
    if axis < len(shape) - 2 and any(v.axis != axis and v.shape[axis] > 1 for v in factors):
        # Of the batch: the other factor must have it too, or 1.
        walk.freeze(node, "multiplied with channels that stay", first)
    return Value(shape, axis, labels, any(v.vanishes for v in kept if v.axis == axis))


def _attention(walk: Walk, node: fx.Node, inputs: list[Value], mask: Any) -> Value:
    """Heads go together; offsets of queries and keys only where the scale does not count them."""
    shape = walk.shape(node)
    last = len(shape) - 1
    query, key, value = (x.widened(len(shape)) for x in inputs)
    summed = [v for v in (query, key) if v.axis == last]
    if summed:
        _sum_over(walk, node, query, key)
        walk.unite(node, query.along(last), key.along(last))
        if node.kwargs.get("scale") is None:
            walk.freeze(node, "attention's scale counts its channels", *summed)
    heads = _heads(walk, node, [query, key, value])
    if heads is not None and value.axis == last:
        walk.freeze(node, "its channels lie along two axes", value)
    _mask(walk, node, mask, heads, len(shape))
    labels = None if heads is None else heads.labels
    keys, tokens = key.shape[last - 1], shape[:-1]
    _count(walk, (*tokens, keys), query.shape[last], [labels, query.along(last)])
    _count(walk, shape, keys, [labels, value.along(last)])
    if heads is None:
        return Value(shape, value.axis, value.labels, value.vanishes)
    return Value(shape, heads.axis, labels, value.vanishes and value.axis == heads.axis)


def _heads(walk: Walk, node: fx.Node, inputs: list[Value]) -> Value | None:
    """Return a value with the heads of all, which go together; one of size 1 asks for nothing."""
    last = len(inputs[0].shape) - 1
    found = [v for v in inputs if v.axis not in (None, last)]
    if not found:
        return None
    axis, labels = found[0].channels
    others = [v for v in inputs if v.axis in (None, last) and v.shape[axis] > 1]
    alike = all(v.axis == axis and v.shape[axis] == len(labels) for v in found)
    if others or not alike or axis >= last - 1 or node.kwargs.get("enable_gqa"):
        walk.freeze(node, "attention needs all of its heads", *found)
    for other in found if alike else ():
        walk.unite(node, labels, other.channels[1])
    return found[0]


def _mask(walk: Walk, node: fx.Node, source: Any, heads: Value | None, ndim: int) -> None:
    """A parameter that masks heads goes with them; a mask of size 1 asks for nothing."""
    mask = walk.values.get(source) if isinstance(source, fx.Node) else None
    if not isinstance(mask, Value):
        return
    mask = mask.widened(ndim)
    if heads is None or mask.axis not in (None, heads.axis):
        walk.freeze(node, "a mask is made of its channels", mask)
    elif mask.labels is not None:
        walk.unite(node, heads.channels[1], mask.labels)
    elif mask.shape[heads.channels[0]] > 1 and not walk.own_parameter(node, source, heads):
        walk.freeze(node, "each head has a mask", heads)
