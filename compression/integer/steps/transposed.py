"""A transposed convolution as convolutions of stride 1, one for each phase of its outputs."""

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import fx

from compression.integer.steps.layout import Layout
from compression.integer.steps.requantization import requantization
from compression.integer.steps.step import Place, Product, RealPlace, Residual, in_order
from compression.integer.steps.target import Target
from compression.integer.steps.windows import phases
from compression.quantization import modules as q


def transposed(
    layout: Layout,
    node: fx.Node,
    layer: q.QuantizedLayer,
    target: Target,
    output: Place | RealPlace,
    residual: Residual | None,
) -> Iterator[Product]:
    """Yield the products of a transposed convolution without groups, on parts of its output."""
    value, outputs = layout.read(node, node.args[0]), layout.spatial(node)
    kernel = layer.codes.transpose(0, 1)
    kernel = kernel.reshape(*kernel.shape[:2], -1, kernel.shape[-1])
    for phase in phases(layer, outputs[1:]):
        filters = kernel[:, :, phase.taps[0]][..., phase.taps[1]].contiguous()
        if not filters.numel():  # no tap: the bias alone
            filters = kernel.new_zeros(*kernel.shape[:2], *phase.window.size)
        sides = [len(phase.rows), len(phase.columns)]
        packed = target.pack(filters, 1, phase.window, value.geometry, sides)
        assert packed is not None
        weights, order = packed
        rows, columns = torch.tensor(phase.rows), torch.tensor(phase.columns)
        pixels = (rows[:, None] * outputs[2] + columns).flatten()
        pixels = pixels if order is None else pixels[order]
        bias, multiplier = requantization(layer, filters, target)
        offsets = phase.window.pixel_offsets(value.geometry, sides)
        yield Product(
            name=str(node.target), channels=outputs[0], bounds=target.bounds,
            input=in_order(replace(value.place(), offsets=offsets), order),
            output=in_order(output, pixels), bias=bias, multiplier=multiplier, weights=weights,
            residual=None if residual is None else in_order(residual, pixels),
        )  # fmt: skip
