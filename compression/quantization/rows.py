"""The operators that look at whole rows of numbers: LayerNorm, and attention."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from compression.attention import added_mask
from compression.quantization.operators import argument, unknown_operator

Constants = Mapping[fx.Node, Tensor]


def norm_of(
    node: fx.Node, kind: Any, layer: nn.Module | None, constants: Constants
) -> nn.LayerNorm | None:
    """Return a LayerNorm as a layer; None for another operator."""
    if type(layer) is nn.LayerNorm:
        return layer
    if kind is not F.layer_norm:
        return None
    shape: Any = argument(node, 1, "normalized_shape")
    shape = (shape,) if type(shape) is int else shape
    held = [argument(node, *place) for place in ((2, "weight"), (3, "bias"))]
    plain = isinstance(shape, list | tuple) and all(type(n) is int for n in shape)
    if not plain or not all(h is None or h in constants for h in held):
        raise unknown_operator(node, kind, " of a shape or with factors that a value tells")
    made = nn.LayerNorm(list(shape), argument(node, 4, "eps", 1e-5), elementwise_affine=False)
    for name, source in zip(("weight", "bias"), held, strict=True):
        if source is not None:
            made.register_parameter(name, nn.Parameter(constants[source].detach().float()))
    return made


class Attended(NamedTuple):
    """Queries, keys and values, and what becomes of the scores; `mask` is added to them."""

    values: tuple[fx.Node, fx.Node, fx.Node]
    scale: float | None
    mask: Tensor | None
    causal: bool


def attention_of(node: fx.Node, kind: Any, constants: Constants) -> Attended | None:
    """Return what scaled dot-product attention attends to; None for another operator."""
    if kind is not F.scaled_dot_product_attention:
        return None
    values: Any = tuple(argument(node, i, n) for i, n in enumerate(("query", "key", "value")))
    mask = argument(node, 3, "attn_mask")
    dropout, causal = argument(node, 4, "dropout_p", 0.0), argument(node, 5, "is_causal", False)
    scale: Any = node.kwargs.get("scale")
    grouped = node.kwargs.get("enable_gqa", False)
    if dropout or type(causal) is not bool or grouped:
        raise unknown_operator(
            node, kind, " with dropout, fewer keys than heads or a causality made"
        )
    if not (scale is None or (type(scale) in (int, float) and scale > 0)):
        raise unknown_operator(node, kind, " with a scale that is no number above 0")
    if mask is not None and mask not in constants:
        raise unknown_operator(node, kind, " with a mask that depends on the inputs")
    held = None if mask is None else constants[mask]
    if held is not None and held.dtype == torch.bool:
        held = added_mask(~held, torch.float32)
    return Attended(values, scale, held, causal)
