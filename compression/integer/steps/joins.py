"""Steps of additions and concatenations: each operand's codes in steps of the output."""

from dataclasses import replace

import torch
from torch import Tensor, fx

from compression.integer.steps.layout import Layout, Value
from compression.integer.steps.step import Map, Place, RealPlace, Residual
from compression.integer.steps.target import Target
from compression.quantization import modules as q


def scaled(
    name: str,
    value: Value,
    scale: float,
    output: Place | RealPlace,
    target: Target,
    residual: Residual | None = None,
) -> Map:
    """Return the step that writes what lies at `value` times `scale`, pixel by pixel, to `output`."""
    return Map(
        name=name, channels=value.geometry.channels, bounds=target.bounds, input=value.place(),
        output=output, residual=residual, scale=scale,
    )  # fmt: skip


def added(value: Value, ratio: Tensor) -> Residual:
    """Return what a step adds to its own."""
    place = value.place()
    return Residual(place.memory, place.offsets, place.stride, place.zero, float(ratio))


def add(
    node: fx.Node, layer: q.QuantizedJoin, values: list[Value], output: Place, target: Target
) -> Map:
    """Return the step of an addition of two values."""
    ratios = layer.input_scales / layer.output_scale
    residual = added(values[1], ratios[1])
    return scaled(str(node.target), values[0], float(ratios[0]), output, target, residual)


def concatenate(
    layout: Layout,
    node: fx.Node,
    layer: q.QuantizedJoin,
    values: list[Value],
    output: Place,
    target: Target,
) -> list[Map]:
    """Return the steps of a concatenation: of channels, or of pixels along one of their axes."""
    shape, dim = layout.shapes[node], (layer.dim or 0) % len(layout.shapes[node])
    axis, steps, begin = layout.axis(node) % len(shape), [], 0
    sides = [size for i, size in enumerate(shape) if i != axis]
    along = dim - (axis < dim)
    places = torch.arange(len(output.offsets)).view(sides)
    for ratio, value in zip(layer.input_scales / layer.output_scale, values, strict=True):
        if dim == axis:
            offsets, count = output.offsets + begin, value.geometry.channels
        else:
            count = len(value.place().offsets) * sides[along] // places.numel()
            offsets = output.offsets[places.narrow(along, begin, count).flatten()]
        part = replace(output, offsets=offsets)
        steps.append(scaled(str(node.target), value, float(ratio), part, target))
        begin += count
    return steps
