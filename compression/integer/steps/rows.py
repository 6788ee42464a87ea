"""Steps that look at whole rows: LayerNorm, and attention."""

from typing import Any

import torch
from torch import Tensor, fx

from compression.integer.codes import INT32_LIMIT, LARGEST
from compression.integer.steps.joins import added
from compression.integer.steps.layout import Layout
from compression.integer.steps.step import Attention, Norm, Place
from compression.integer.steps.target import Target
from compression.quantization import modules as q
from compression.quantization.sums import REST_STEPS

MOST_KEYS = (INT32_LIMIT - 1) // LARGEST**2
"""With so many, sums of weights times distances of values are whole numbers of int32."""


def normalize(
    layout: Layout, node: fx.Node, layer: q.QuantizedLayerNorm, target: Target, output: Place
) -> Norm:
    """Return the step of a LayerNorm over the channels."""
    value, *rest = (layout.read(node, source) for source in node.args)
    weight, bias = layer.factors()
    residual = added(rest[0], torch.tensor(1 / REST_STEPS)) if rest else None
    return Norm(
        name=str(node.target), channels=value.geometry.channels, bounds=target.bounds,
        input=value.place(), output=output, residual=residual, weight=weight, bias=bias,
        epsilon=float(layer.epsilon()),
    )  # fmt: skip


def attend(
    layout: Layout, node: fx.Node, layer: q.QuantizedAttention, target: Target, output: Place
) -> Attention:
    """Return the step of an attention; groups are heads, and windows where there are some."""
    query, key, value = (layout.read(node, source) for source in node.args)
    shapes: list[Any] = [layout.shapes[source] for source in node.args]  # type: ignore[index]
    (*_, queries, depth), keys = shapes[0], shapes[1][-2]
    mask = layer.mask_steps(depth, queries, keys)
    return Attention(
        name=str(node.target), channels=value.geometry.channels, bounds=target.bounds,
        input=query.place(), output=output, queries=queries, keys=keys, depth=depth,
        key=key.place(), value=value.place(),
        mask=None if mask is None else _each_group(mask, shapes[0]),
        rate=float(layer.rate(depth)), ratio=float(layer.ratio()),
    )  # fmt: skip


def _each_group(mask: Tensor, shape: list[int]) -> Tensor:
    """Return (masks, queries, keys): the groups' masks follow one another, and then again."""
    groups = shape[:-2]
    lead = mask.shape[:-2]
    wide = [*groups[len(groups) - len(lead) :], *mask.shape[-2:]]
    return mask.expand(wide).reshape(-1, *mask.shape[-2:]).contiguous()


def unfit(
    layout: Layout, node: fx.Node, layer: q.QuantizedLayerNorm | q.QuantizedAttention
) -> str | None:
    """Say what no step computes, None for rows of one axis, and for groups of one shape."""
    if isinstance(layer, q.QuantizedLayerNorm):
        return None if layer.dims == 1 else f" over {layer.dims} dimensions"
    shapes = [layout.shapes[source] for source in (*node.args, node)]  # type: ignore[index]
    if len({tuple(shape[:-2]) for shape in shapes}) > 1 or len(shapes[0]) < 3:
        return f" of {', '.join(str(shape[1:]) for shape in shapes[:-1])}"
    keys = shapes[1][-2]
    return f" of {keys} keys, more than {MOST_KEYS}" if keys > MOST_KEYS else None
