"""Operators that static INT8 has in other words: a difference is a sum, a stack a concatenation."""

import math
import operator
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from compression.graph import arguments_of, bare_layer
from compression.layers import CONVOLUTIONS
from compression.quantization.fallback import constants_of
from compression.quantization.grouping import norm_rows
from compression.quantization.operators import argument
from compression.quantization.padding import join_border

_DIFFERENCES = (operator.sub, torch.sub, torch.subtract, "sub", "subtract")
_STACKS = (torch.stack,)
_EXPANSIONS = ("expand_as",)
_TOTALS = (torch.sum, "sum")
_SUMS = (operator.add, torch.add, "add", operator.mul, torch.mul, "mul")
_LAYERS: dict[Any, Any] = {
    F.linear: nn.Linear,
    **dict(zip((F.conv1d, F.conv2d, F.conv3d), CONVOLUTIONS, strict=True)),
}
_OPTIONS = ("stride", "padding", "dilation", "groups")


@torch.no_grad()
def rewrite(traced: fx.GraphModule) -> fx.GraphModule:
    """Write operators in others that static INT8 knows, in place; return the network.

    Layers whose weights are made of constants, as those that are standardized at each call, become
    layers of these.
    """
    constants = constants_of(traced)
    for node in list(traced.graph.nodes):
        if node.target is torch._assert:  # of sizes: they would count as readers of what they ask
            traced.graph.erase_node(node)
            continue
        if not node.op.startswith("call_") or node in constants:
            continue
        with traced.graph.inserting_before(node):
            found = _in_other_words(traced, node, constants)
        if found is not None:
            found.meta = {**node.meta, **found.meta}
            node.replace_all_uses_with(found)
            traced.graph.erase_node(node)
    traced.graph.eliminate_dead_code()
    traced.recompile()
    return traced


def _in_other_words(
    traced: fx.GraphModule, node: fx.Node, constants: dict[fx.Node, Tensor]
) -> fx.Node | None:
    """Return the node that gives what `node` does, made before it; None for others."""
    graph, target = traced.graph, node.target
    if target in _DIFFERENCES and len(node.args) == 2 and not node.kwargs:
        less = node.args[1]
        if isinstance(less, fx.Node) and isinstance(node.args[0], fx.Node):
            return graph.call_function(operator.add, (node.args[0], _neg(node, less)))
    if target in _STACKS:
        parts, dim = argument(node, 0, "tensors"), argument(node, 1, "dim", 0)
        apart = [_at(node, graph.call_method("unsqueeze", (part, dim))) for part in parts]
        return graph.call_function(torch.cat, (apart, dim))
    if target is torch.addcmul and len(node.args) == 3 and not node.kwargs:
        product = _at(node, graph.call_function(operator.mul, (node.args[1], node.args[2])))
        return graph.call_function(operator.add, (product, node.args[0]))
    if target in _EXPANSIONS and all(_beside(user, node) for user in node.users):
        found: Any = node.args[0]
        return found
    if target in _TOTALS and (count := _summed(node)):
        mean = _at(node, graph.call_method("mean", node.args, dict(node.kwargs)))
        return graph.call_function(operator.mul, (mean, count))
    if target in _LAYERS:
        return _layer(traced, node, constants)
    return join_border(traced, node) or norm_rows(traced, node)


def _beside(user: fx.Node, node: fx.Node) -> bool:
    """Tell whether a sum or a product broadcasts `node` to the shape that it was expanded to."""
    return user.target in _SUMS and node.args[1] in user.args


def _summed(node: fx.Node) -> int:
    """Return how many numbers a sum over axes of known size adds; 0 where they are not known."""
    source: Any = node.args[0]
    sizes, dims = source.meta.get("sizes"), argument(node, 1, "dim")
    dims = [dims] if type(dims) is int else dims
    if not sizes or not isinstance(dims, list | tuple) or "dtype" in node.kwargs or not dims:
        return 0
    axes = [dim % (len(sizes) + 1) - 1 for dim in dims]
    return 0 if -1 in axes else math.prod(sizes[axis] for axis in axes)


def _neg(node: fx.Node, x: fx.Node) -> fx.Node:
    return _at(node, node.graph.call_function(operator.neg, (x,)))


def _at(node: fx.Node, made: fx.Node) -> fx.Node:
    """Give a node that stands for another its place in the user's code."""
    made.meta["place"] = node.meta.get("place")
    return made


def _layer(
    traced: fx.GraphModule, node: fx.Node, constants: dict[fx.Node, Tensor]
) -> fx.Node | None:
    """Call the layer of a function whose weights are constants."""
    names = ("input", "weight", "bias", *(() if node.target is F.linear else _OPTIONS))
    given = arguments_of(node, names)
    tensors = [given.get("weight"), given.get("bias")]
    if not all(t is None or t in constants for t in tensors) or tensors[0] is None:
        return None
    weight, bias = (None if t is None else constants[t] for t in tensors)
    assert weight is not None
    options = {name: given[name] for name in _OPTIONS if name in given}
    if any(isinstance(v, fx.Node) for v in options.values()):
        return None
    layer: Any = bare_layer(_LAYERS[node.target], weight, bias, **options)
    layer.weight = nn.Parameter(weight.detach().clone())
    layer.bias = None if bias is None else nn.Parameter(bias.detach().clone())
    name = f"{node.name}_layer"
    traced.add_submodule(name, layer.eval())
    return traced.graph.call_module(name, (given["input"],))
