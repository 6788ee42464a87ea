"""Norms of groups of channels as LayerNorm of rows, then a factor and a shift per channel."""

import math
import operator
from typing import Any

from torch import fx, nn
from torch.nn import functional as F

from compression.graph import arguments_of
from compression.quantization.norm import MOST_CODES

_INSTANCE_NORMS = (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)
_NAMES = ("input", "num_groups", "weight", "bias", "eps")


def norm_rows(traced: fx.GraphModule, node: fx.Node) -> fx.Node | None:
    """Return a node, made before `node`, that normalizes groups of channels as rows.

    None for another operator, for groups of too many numbers, and where the graph is one of images of
    any size: how many a group holds is not known then. Wu and He 2018, arXiv:1803.08494.
    """
    given = _group_norm(traced, node)
    source: Any = given and given["input"]
    sizes = source.meta.get("sizes") if isinstance(source, fx.Node) else None
    if not given or not sizes or sizes[0] % given["num_groups"]:
        return None
    count = math.prod(sizes) // given["num_groups"]
    if not 0 < count <= MOST_CODES:
        return None
    graph = traced.graph
    images = graph.call_method("size", (source, 0))
    rows = graph.call_method("reshape", (source, images, given["num_groups"], count))
    normal = graph.call_function(F.layer_norm, (rows, (count,), None, None, given["eps"]))
    found = graph.call_method("reshape", (normal, images, *sizes))
    for name, apply in (("weight", operator.mul), ("bias", operator.add)):
        if given[name] is not None:
            each = graph.call_method("view", (given[name], sizes[0], *[1] * (len(sizes) - 1)))
            found.meta["place"] = node.meta.get("place")
            found = graph.call_function(apply, (found, each))
    return found


def _group_norm(traced: fx.GraphModule, node: fx.Node) -> dict[str, Any] | None:
    """Return what a norm of groups is given, as F.group_norm names it; None for another operator."""
    if node.target is F.group_norm:
        given = {"weight": None, "bias": None, "eps": 1e-5} | arguments_of(node, _NAMES)
        return given if type(given["num_groups"]) is int else None
    layer: Any = traced.get_submodule(str(node.target)) if node.op == "call_module" else None
    if type(layer) in _INSTANCE_NORMS and not layer.track_running_stats:
        groups = layer.num_features
    elif type(layer) is nn.GroupNorm:
        groups = layer.num_groups
    else:
        return None
    held = {
        name: None
        if getattr(layer, name) is None
        else traced.graph.get_attr(f"{node.target}.{name}")
        for name in ("weight", "bias")
    }
    return {"input": node.args[0], "num_groups": groups, "eps": layer.eps, **held}
