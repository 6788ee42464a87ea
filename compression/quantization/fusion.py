"""Attention of a traced graph as one operator, and scales of channels taken into the layer before.

Attention comes whole (compression/attention.py), as torch's operator, or written out: a product, a
softmax, another product. All become F.scaled_dot_product_attention between moves.
"""

import operator
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from compression.attention import added_mask, attend
from compression.layers import CONVOLUTIONS, copy_model, replace_layer
from compression.quantization.fallback import constants_of
from compression.quantization.operators import argument, is_one_of, keeps_values, kind_of
from compression.quantization.softmax import Written, written_attention

_PERMUTES = (torch.permute, "permute")
_PRODUCTS = (operator.mul, torch.mul, "mul", torch.multiply, "multiply")


@torch.no_grad()
def fuse(folded: fx.GraphModule) -> fx.GraphModule:
    """Fuse, in place, what static INT8 computes as one operator; return the network."""
    constants = constants_of(folded)
    for node in list(folded.graph.nodes):
        if node.target is attend:
            _take_apart(node, constants)
        elif (written := written_attention(folded, node, constants)) is not None:
            _write_as_one(node, written)
        elif node.op.startswith("call") and is_one_of(kind_of(node, None), _PRODUCTS):
            _take_scale(folded, node, constants)
    folded.graph.eliminate_dead_code()
    folded.delete_all_unused_submodules()
    folded.recompile()
    return folded


def _take_apart(node: fx.Node, constants: dict[fx.Node, Tensor]) -> None:
    """Replace whole attention by moves around torch's operator, where its weights are not asked for."""
    options: dict[str, Any] = dict(node.kwargs)
    mask, padding, causal = options["masks"]
    whole = all(u.target is operator.getitem and u.args[1] == 0 for u in node.users)
    plain = options["more"] == (None, None, False) and padding is None and not options["dropout"]
    known = mask is None or (mask in constants and constants[mask].ndim == 2)
    if not (whole and plain and known) or (causal and mask is None):
        return
    graph, first = node.graph, options["batch_first"]
    with graph.inserting_before(node):
        if mask is not None:
            mask = _derived(node, graph.call_function(added_mask, (mask, torch.float32)))
        heads = [_heads(node, x, options["head_dim"], first) for x in node.args]
        found = graph.call_function(
            F.scaled_dot_product_attention, (*heads, mask), {"scale": options["scale"]}
        )
        back = ("transpose", -3, -2) if first else ("movedim", -2, 0)
        for name, *arguments in (back, ("flatten", -2)):
            found = _moved(node, _derived(node, found), name, *arguments)
    for user in list(node.users):
        user.replace_all_uses_with(found)


def _heads(node: fx.Node, x: Any, channels: int, first: bool) -> fx.Node:
    """Return tokens as (..., heads, tokens, channels of a head)."""
    apart = _moved(node, x, "unflatten", -1, (-1, channels))
    name, *arguments = ("transpose", -3, -2) if first else ("movedim", 0, -2)
    return _moved(node, apart, name, *arguments)


def _write_as_one(node: fx.Node, written: Written) -> None:
    graph = node.graph
    with graph.inserting_before(node):
        query, key = (_derived(node, made) if made else given for made, given in _operands(written))
        mask = None
        for addend in written.addends:
            mask = addend if mask is None else graph.call_function(operator.add, (mask, addend))
        parts = [query, key, written.value]
        if written.windows is not None:
            apart = ("unflatten", 0, (-1, written.windows))
            parts = [_moved(node, part, *apart) for part in parts]
        found = graph.call_function(
            F.scaled_dot_product_attention, (*parts, mask), {"scale": written.scale}
        )
        if written.windows is not None:
            found = _moved(node, _derived(node, found), "flatten", 0, 1)
    node.replace_all_uses_with(_derived(node, found))


def _moved(node: fx.Node, value: fx.Node, name: str, *arguments: Any) -> fx.Node:
    return _derived(node, node.graph.call_method(name, (value, *arguments)))


def _operands(written: Written) -> list[tuple[fx.Node | None, fx.Node]]:
    """Return queries and keys: made anew where keys come transposed, or as they are."""
    key = written.key
    if written.transposed:
        made = key.graph.call_method("transpose", (key, -2, -1))
        return [(None, written.query), (made, key)]
    return [(None, written.query), (None, key)]


def _derived(node: fx.Node, made: fx.Node) -> fx.Node:
    """Give a node that stands for another its place in the user's code."""
    made.meta["place"] = node.meta.get("place")
    return made


def _take_scale(folded: fx.GraphModule, node: fx.Node, constants: dict[fx.Node, Tensor]) -> None:
    """Multiply a layer's filters by the constant per channel that alone multiplies its outputs."""
    operands = [argument(node, 0, "input"), argument(node, 1, "other")]
    scales = [constants[a] for a in operands if a in constants]
    others = [a for a in operands if isinstance(a, fx.Node) and a not in constants]
    if len(scales) != 1 or len(others) != 1 or len(node.kwargs) > 1:
        return
    found = _layer_behind(folded, others[0], scales[0])
    if found is None:
        return
    name, layer = found
    scaled: Any = copy_model(layer)
    factor = scales[0].flatten().to(scaled.weight)
    scaled.weight *= factor.view(-1, *[1] * (scaled.weight.ndim - 1))
    if scaled.bias is not None:
        scaled.bias *= factor
    replace_layer(folded, name, scaled)
    node.replace_all_uses_with(others[0])


def _layer_behind(
    folded: fx.GraphModule, node: fx.Node, scale: Tensor
) -> tuple[str, nn.Module] | None:
    """Return the layer whose output channels `scale` multiplies, and its name; None for none.

    A scale of more axes than the layer's outputs are known to have would make more of them.
    """
    modules, rank = dict(folded.named_modules()), 1
    long = [i - scale.ndim for i, size in enumerate(scale.shape) if size != 1]
    axis = long[0] if len(long) == 1 else None
    while axis is not None and len(node.users) == 1:
        layer: Any = modules.get(str(node.target)) if node.op == "call_module" else None
        kind = kind_of(node, layer)
        if type(layer) in (nn.Linear, *CONVOLUTIONS):
            linear = isinstance(layer, nn.Linear)
            rank = rank if linear else max(rank, layer.weight.ndim)
            calls = sum(n.op == "call_module" and n.target == node.target for n in node.graph.nodes)
            fits = axis == (-1 if linear else 1 - layer.weight.ndim) and scale.ndim <= rank
            whole = len(layer.weight) == scale.numel() and calls == 1
            return (str(node.target), layer) if fits and whole else None
        if is_one_of(kind, _PERMUTES):
            order = _order(node)
            axis = None if order is None else order[axis] % len(order) - len(order)
            rank = max(rank, len(order or ()))
        elif not keeps_values(node, kind):
            return None
        node = node.all_input_nodes[0]
    return None


def _order(node: fx.Node) -> list[int] | None:
    """Return the order of a permutation's axes, None where it is not of plain numbers."""
    given: Any = node.kwargs.get("dims", node.args[1:])
    order = given[0] if len(given) == 1 and isinstance(given[0], list | tuple) else given
    return list(order) if order and all(type(i) is int for i in order) else None
