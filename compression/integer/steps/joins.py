"""Steps of additions and concatenations: each operand's codes in steps of the output."""

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor, fx

from compression.integer.steps.geometry import Geometry
from compression.integer.steps.layout import Layout, Value
from compression.integer.steps.step import Map, Place, RealPlace, Residual, Step, Sum
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
) -> Map | Sum:
    """Return the step of an addition of up to three values."""
    ratios = layer.ratios()
    first, *others = values
    addends = [added(value, ratio) for value, ratio in zip(others, ratios[1:], strict=True)]
    residual, third = (*addends, None, None)[:2]
    step = scaled(str(node.target), first, float(ratios[0]), output, target, residual)
    return step if third is None else _as_sum(step, third=third)


def with_rests(steps: Sequence[Map | Sum], rests: Sequence[Map | Sum]) -> list[Sum]:
    """Return the steps of a sum or concatenation so that they write what their rounding leaves, too.

    `rests` are the same steps, written to where that belongs.
    """
    pairs = zip(steps, rests, strict=True)
    return [_as_sum(step, rest=rest.output) for step, rest in pairs]


def unread(
    layout: Layout, geometry: Geometry, steps: Sequence[Map | Sum], zero: int
) -> list[Map | Sum]:
    """Return the steps once more, writing codes of this zero that nobody reads."""
    spare, again = layout.buffers.take(geometry), []
    for step in steps:
        place: Any = step.output
        again.append(replace(step, output=replace(place, memory=spare, zero=zero)))
    layout.buffers.give_back(geometry, spare)
    return again


def _as_sum(step: Step, **more: Place | RealPlace) -> Sum:
    """Return the sum that a step is, with more that it reads or writes."""
    own = {field.name: getattr(step, field.name) for field in fields(step)}
    return Sum(**own | more)


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
    axis, begin = layout.axis(node) % len(shape), 0
    steps: list[Map] = []
    sides = [size for i, size in enumerate(shape) if i != axis]
    along = dim - (axis < dim)
    places = torch.arange(len(output.offsets)).view(sides)
    for ratio, value in zip(layer.ratios(), values, strict=True):
        if dim == axis:
            offsets, count = output.offsets + begin, value.geometry.channels
        else:
            count = len(value.place().offsets) * sides[along] // places.numel()
            offsets = output.offsets[places.narrow(along, begin, count).flatten()]
        part = replace(output, offsets=offsets)
        steps.append(scaled(str(node.target), value, float(ratio), part, target))
        begin += count
    return steps
