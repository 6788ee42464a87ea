"""Borders of one number around values of a known size: constants that codes are joined to."""

import math
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional as F

from compression.graph import arguments_of

_PADS = (F.pad, torch.constant_pad_nd)
_LAYERS = (
    nn.ZeroPad1d,
    nn.ZeroPad2d,
    nn.ZeroPad3d,
    nn.ConstantPad1d,
    nn.ConstantPad2d,
    nn.ConstantPad3d,
)
_NAMES = ("input", "pad", "mode", "value")


def join_border(traced: fx.GraphModule, node: fx.Node) -> fx.Node | None:
    """Return a node, made before `node`, that joins constants to what it pads by a number.

    None for a node that pads otherwise, and where the graph is one of images of any size, so that the
    size of the constants is not known.
    """
    found: Any = node.args[0] if node.args else None
    sizes = found.meta.get("sizes") if isinstance(found, fx.Node) else None
    border = _border(traced, node) if sizes else None
    if not sizes or border is None or len(border[0]) > 2 * len(sizes):
        return None
    (pads, value), images = border, traced.graph.call_method("size", (found, 0))
    like = next((p for p in traced.parameters() if p.is_floating_point()), torch.empty(0))
    for axis, counts in enumerate(zip(pads[::2], pads[1::2], strict=True), 1):
        blocks: list[fx.Node | None] = []
        for side, count in zip(("before", "after"), counts, strict=True):
            block = torch.full(
                (1, *sizes[:-axis], count, *sizes[len(sizes) - axis + 1 :]), value,
                dtype=like.dtype, device=like.device,
            )  # fmt: skip
            name = f"{node.name}_{side}{axis}"
            blocks.append(_each_image(traced, name, block, images) if count else None)
        parts = [part for part in (blocks[0], found, blocks[1]) if part is not None]
        if len(parts) > 1:
            found = traced.graph.call_function(torch.cat, (parts, -axis))
            found.meta["place"] = node.meta.get("place")
            longer = sizes[-axis] + sum(counts)
            sizes = (*sizes[:-axis], longer, *sizes[len(sizes) - axis + 1 :])
    return found  # type: ignore[no-any-return]


def _border(traced: fx.GraphModule, node: fx.Node) -> tuple[list[int], float] | None:
    """Return how far a node pads, from the last axis on, and by what; None for other than a number."""
    if node.op == "call_module":
        layer: Any = traced.get_submodule(str(node.target))
        pads: Any = layer.padding if type(layer) in _LAYERS else None
        value = getattr(layer, "value", 0)
    else:
        given = arguments_of(node, _NAMES)
        constant = node.target in _PADS and given.get("mode", "constant") == "constant"
        pads, value = given.get("pad") if constant else None, given.get("value") or 0
    plain = isinstance(pads, list | tuple) and all(type(n) is int and n >= 0 for n in pads)
    if not plain or len(pads) % 2 or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return [*pads], float(value)


def _each_image(traced: fx.GraphModule, name: str, block: torch.Tensor, images: fx.Node) -> fx.Node:
    traced.register_buffer(name, block)
    held = traced.graph.get_attr(name)
    return traced.graph.call_method("expand", (held, images, *[-1] * (block.ndim - 1)))
