"""Attention of torch's own layers, and of ours: whole heads go, and what hangs on them."""

import operator
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from compression.attention import PROJECTIONS, Attention, attend
from compression.channels.values import Found, Value
from compression.channels.walk import Pair, Place, Product, Walk
from compression.graph import place_of

INPUTS = ("query", "key", "value")
NAMES = (
    *(*INPUTS, "key_padding_mask", "need_weights", "attn_mask"),
    *("average_attn_weights", "is_causal"),
)
"""The arguments of nn.MultiheadAttention."""


def attention(walk: Walk, node: fx.Node, module: Any) -> Found | None:
    """Return what attention gives; None for another operator."""
    if node.op == "call_function" and node.target is attend:
        return _attended(walk, node)
    if type(module) is not nn.MultiheadAttention:
        return None
    given = dict(zip(NAMES, node.args, strict=False)) | node.kwargs
    inputs = [walk.values.get(given.get(name)) for name in INPUTS]  # type: ignore[arg-type]
    if not all(isinstance(value, Value) for value in inputs):
        return None
    outputs = heads(walk, node, str(node.target), module, inputs)
    made = walk.made_by(str(node.target), module.num_heads)
    _freeze_where_read(walk, node, made)
    freeze_masked(walk, node, [given.get("attn_mask"), given.get("key_padding_mask")], made)
    return _with_weights(walk, node, outputs)


def _attended(walk: Walk, node: fx.Node) -> Found:
    """Let heads go together in queries, keys and values that layers made."""
    inputs = [walk.value(x) for x in node.args if isinstance(x, fx.Node)]
    told: dict[str, Any] = dict(node.kwargs)
    more, masks = told["more"], told["masks"]
    query, *others = [_last(walk, node, value) for value in inputs]
    others += [walk.value(x).along(-1) for x in more[:2] if isinstance(x, fx.Node)]
    for other in others:
        walk.unite(node, query, other)
    table = query.view(-1, told["head_dim"])
    walk.unite(node, table[:, 1:].reshape(-1), table[:, :1].expand_as(table[:, 1:]).reshape(-1))
    _freeze_single(walk, node, table[:, 0])
    _freeze_where_read(walk, node, query)
    freeze_masked(walk, node, masks[:2], query)
    longer = (more[0] is not None) + bool(more[2])
    _count_pairs(walk, [value.shape for value in inputs], told["batch_first"], longer, query)
    shape = walk.shapes[node][0]
    assert isinstance(shape, tuple)
    return _with_weights(walk, node, Value(shape, len(shape) - 1, query, inputs[2].vanishes))


def heads(walk: Walk, node: fx.Node, name: str, module: Any, inputs: Sequence[Any]) -> Value:
    """Return the outputs of a layer of attention, and note what hangs on its heads.

    `inputs` are its queries, keys and values. A narrower layer is written out: the numbers of
    channels are those of its projections.
    """
    made = walk.made_by(name, module.num_heads)
    _freeze_single(walk, node, made)
    inner, out = made.repeat_interleave(module.head_dim), f"{name}.out_proj"
    reads = [_last(walk, node, value) for value in inputs]
    outputs = walk.made_by(out, walk.modules[out].out_features)  # type: ignore[arg-type]
    _own_projections(walk, node, name, module, inner, reads)
    for tensor in ("bias_k", "bias_v"):
        walk.own(node, name, tensor, 2, inner)
    own_linear(walk, node, out, inner, outputs)
    sides = zip(PROJECTIONS, [*reads, inner], [inner] * 3 + [outputs], strict=True)
    shapes = [value.shape for value in inputs]
    for (child, read, given), shape in zip(sides, [*shapes, shapes[0]], strict=True):
        walk.channels.counts[Place(f"{name}.{child}", "in_features")] = read
        walk.channels.counts[Place(f"{name}.{child}", "out_features")] = given
        macs = tokens(shape) * len(read) * len(given)
        product = Product(out, macs, given, read, (*shape[:-1], len(read)))
        walk.channels.products.append(product)
    longer = (module.bias_k is not None) + bool(module.add_zero_attn)
    _count_pairs(walk, shapes, module.batch_first, longer, inner)
    shape = (*shapes[0][:-1], len(outputs))
    return Value(shape, len(shape) - 1, outputs, vanishes=True)


def _own_projections(
    walk: Walk, node: fx.Node, name: str, module: Any, inner: Tensor, reads: list[Tensor]
) -> None:
    if isinstance(module, Attention):
        for child, read in zip(PROJECTIONS, reads, strict=False):
            own_linear(walk, node, f"{name}.{child}", read, inner)
        return
    if module.in_proj_weight is not None:
        walk.own(node, name, "in_proj_weight", 0, inner.repeat(3), makes=True)
        for read in reads:
            walk.own(node, name, "in_proj_weight", 1, read)
    else:
        for child, read in zip(PROJECTIONS, reads, strict=False):
            walk.own(node, name, f"{child}_weight", 0, inner, makes=True)
            walk.own(node, name, f"{child}_weight", 1, read)
    walk.own(node, name, "in_proj_bias", 0, inner.repeat(3))


def own_linear(walk: Walk, node: fx.Node, name: str, read: Tensor, given: Tensor) -> None:
    """Note the channels that a linear layer reads and makes."""
    walk.own(node, name, "weight", 0, given, makes=True)
    walk.own(node, name, "weight", 1, read)
    walk.own(node, name, "bias", 0, given)


def _last(walk: Walk, node: fx.Node, value: Value) -> Tensor:
    """Return the labels along the last axis; those along another one stay."""
    last = len(value.shape) - 1
    if value.axis not in (None, last):
        walk.freeze(node, "attention mixes what lies along this axis", value)
    return value.along(last)


def _count_pairs(
    walk: Walk, shapes: list[tuple[int, ...]], batch_first: bool, longer: int, inner: Tensor
) -> None:
    """Note the products of queries with keys, of which some are appended, and with values."""
    query, key = shapes[:2]
    keys = key[1 if batch_first and len(key) == 3 else 0] + longer
    macs = tokens(query) * keys * len(inner)
    walk.channels.pairs += [Pair(macs, (inner,))] * 2


def tokens(shape: tuple[int, ...]) -> int:
    """Return how many vectors a tensor holds along its last axis."""
    return int(torch.Size(shape[:-1]).numel())


def _freeze_single(walk: Walk, node: fx.Node, made: Tensor) -> None:
    if len(made) == 1:
        walk.labels.freeze(made, f"attention has one head at {place_of(node)}")


def _freeze_where_read(walk: Walk, node: fx.Node, made: Tensor) -> None:
    """Let heads stay whose weights somebody reads: their mean counts them."""
    if walk.shapes[node][1] == ():  # it gives none
        return
    for user in node.users:
        outputs = user.target is operator.getitem and user.args[1] == 0
        if not outputs and (user.users or user.op == "output"):
            walk.labels.freeze(made, f"the weights of attention are read at {place_of(node)}")


def freeze_masked(walk: Walk, node: fx.Node, masks: Iterable[Any], made: Tensor) -> None:
    """Let heads stay that have masks of their own, and channels that masks are made of."""
    for mask in masks:
        value = walk.values.get(mask) if isinstance(mask, fx.Node) else None
        if isinstance(value, Value):
            walk.freeze(node, "a mask is made of its channels", value)
            if len(value.shape) == 3:
                walk.labels.freeze(made, f"each head has a mask at {place_of(node)}")


def _with_weights(walk: Walk, node: fx.Node, outputs: Value) -> Found:
    _, weights = walk.shapes[node]
    assert isinstance(weights, tuple)
    return outputs, Value(weights)
