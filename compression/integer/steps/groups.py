"""A convolution of groups as products of some groups each, on their own channels."""

from collections.abc import Iterator
from dataclasses import replace
from typing import TypeVar

import torch
from torch import Tensor

from compression.integer.steps.step import Place, Product, RealPlace, Weights, in_order

FILL = 16
"""Channels that a product computes at once: smaller groups are multiplied together, with zeros."""
AnyPlace = TypeVar("AnyPlace", bound=Place | RealPlace)


def parts(whole: Product, weights: Tensor, groups: int) -> Iterator[tuple[Product, Tensor]]:
    """Yield products that make up a convolution, and the weights (O, I, D, H, W) of each."""
    outputs, inputs = len(weights) // groups, weights.shape[1]
    together = next(
        k for k in range(1, groups + 1) if groups % k == 0 and _enough(k, outputs, groups)
    )
    for first in range(0, groups, together):
        rows = slice(first * outputs, (first + together) * outputs)
        wide = weights.new_zeros(together * outputs, together * inputs, *weights.shape[2:])
        for k in range(together):
            own = weights[(first + k) * outputs : (first + k + 1) * outputs]
            wide[k * outputs : (k + 1) * outputs, k * inputs : (k + 1) * inputs] = own
        residual = None if whole.residual is None else _from(whole.residual, rows.start)
        part = replace(
            whole, name=whole.name if groups == together else f"{whole.name}[{first}]",
            channels=len(wide), input=_from(whole.input, first * inputs),
            output=_from(whole.output, rows.start), residual=residual,
            bias=whole.bias[rows].contiguous(), multiplier=whole.multiplier[rows].contiguous(),
        )  # fmt: skip
        yield part, wide


def _enough(together: int, outputs: int, groups: int) -> bool:
    return together * outputs >= FILL or together == groups


def _from(place: AnyPlace, channel: int) -> AnyPlace:
    """Return a place that begins at a channel of each pixel."""
    if not channel:
        return place
    return replace(place, offsets=(place.offsets + torch.tensor(channel, dtype=torch.int32)))


def with_weights(product: Product, weights: Weights, order: Tensor | None) -> Product:
    """Return a product of packed weights, its pixels in the order of these indices."""
    residual = product.residual
    return replace(
        product, weights=weights, input=in_order(product.input, order),
        output=in_order(product.output, order),
        residual=None if residual is None else in_order(residual, order),
    )  # fmt: skip
