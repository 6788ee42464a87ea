"""Steps of additions and concatenations: each operand's codes in steps of the output."""

from dataclasses import fields, replace

import torch
from torch import Tensor, fx

from compression.affine import INT8_MAX, INT8_MIN
from compression.integer.steps.layout import Layout, Value
from compression.integer.steps.step import Map, Place, RealPlace, Residual, Sum
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
    """Return the step of an addition of up to three values, or of what its rounding leaves."""
    ratios = layer.input_scales / layer.output_scale
    first, *others = values
    addends = [added(value, ratio) for value, ratio in zip(others, ratios[1:], strict=True)]
    residual, third = (*addends, None, None)[:2]
    rounded = _rounded(layer)
    step = scaled(str(node.target), first, float(ratios[0]), output, target, residual)
    return step if third is None and rounded is None else _as_sum(step, rounded, third)


def _rounded(layer: q.QuantizedJoin) -> tuple[int, int] | None:
    """Return the bounds, less its zero, of the codes of which a layer gives the rest, if it does."""
    if not isinstance(layer, q.QuantizedRest):
        return None
    zero = int(layer.rounded_zero_point)
    return INT8_MIN - zero, INT8_MAX - zero


def _as_sum(step: Map, rounded: tuple[int, int] | None, third: Residual | None = None) -> Sum:
    """Return the sum that a step is, of which it is what rounding leaves, and with a third addend."""
    own = {field.name: getattr(step, field.name) for field in fields(step)}
    return Sum(**own, third=third, rounded=rounded)


def concatenate(
    layout: Layout,
    node: fx.Node,
    layer: q.QuantizedJoin,
    values: list[Value],
    output: Place,
    target: Target,
) -> list[Map | Sum]:
    """Return the steps of a concatenation: of channels, or of pixels along one of their axes."""
    shape, dim = layout.shapes[node], (layer.dim or 0) % len(layout.shapes[node])
    axis, begin, rounded = layout.axis(node) % len(shape), 0, _rounded(layer)
    steps: list[Map | Sum] = []
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
        step = scaled(str(node.target), value, float(ratio), part, target)
        steps.append(step if rounded is None else _as_sum(step, rounded))
        begin += count
    return steps
