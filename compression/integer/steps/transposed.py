"""A transposed convolution as convolutions of stride 1, one for each phase of its outputs."""

import math
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import fx

from compression.integer.steps.axes import DIMS
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
    kernel = kernel.view(*kernel.shape[:2], *[1] * (DIMS + 2 - kernel.ndim), *kernel.shape[2:])
    for phase in phases(layer, outputs[1:]):
        filters = kernel
        for axis, taps in enumerate(phase.taps):
            places = torch.tensor(taps, dtype=torch.int64)
            filters = filters.index_select(axis + 2, places.to(kernel.device))
        if not filters.numel():  # no tap: the bias alone
            filters = kernel.new_zeros(*kernel.shape[:2], *phase.window.size)
        packed = target.pack(filters, 1, phase.window, value.geometry, phase.sides)
        assert packed is not None
        weights, order = packed
        pixels = torch.arange(math.prod(outputs[1:])).view(outputs[1:])
        for axis, own in enumerate(phase.outputs):
            pixels = pixels.index_select(axis, torch.tensor(own))
        pixels = pixels.flatten()
        pixels = pixels if order is None else pixels[order]
        bias, multiplier = requantization(layer, filters, target)
        offsets = phase.window.pixel_offsets(value.geometry, phase.sides)
        yield Product(
            name=str(node.target), channels=outputs[0], bounds=target.bounds,
            input=in_order(replace(value.place(), offsets=offsets), order),
            output=in_order(output, pixels), bias=bias, multiplier=multiplier, weights=weights,
            residual=None if residual is None else in_order(residual, pixels),
        )  # fmt: skip
