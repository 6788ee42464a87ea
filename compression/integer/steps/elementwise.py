"""Steps that take codes one by one: put elsewhere, looked up in a table, times others."""

import math
from dataclasses import replace

import torch
from torch import Tensor, fx

from compression.affine import INT8_MAX, INT8_MIN
from compression.integer.steps.axes import DIMS, by_pixel
from compression.integer.steps.layout import Layout
from compression.integer.steps.operands import values_read
from compression.integer.steps.step import (
    CodesStep,
    Gather,
    Interpolation,
    Lookup,
    Map,
    Maximum,
    Multiplication,
    Place,
)
from compression.integer.steps.target import Target
from compression.quantization import modules as q
from compression.quantization.interpolation import WEIGHT_BITS, Neighbours

ALONE = Neighbours(
    torch.zeros(1, dtype=torch.int64),
    torch.zeros(1, dtype=torch.int64),
    torch.tensor([[2**WEIGHT_BITS, 0]]),
)
"""The one frame of an image, and the one row of a signal."""


def gather(layout: Layout, node: fx.Node, target: Target) -> CodesStep:
    """Return the step that puts the codes of a node that moves them where its readers find them."""
    root, places = layout.whence(node)
    value, axis = layout.values[root], layout.moved[node]
    taps = by_pixel(places, layout.shapes[node], axis)
    channels = taps.shape[1]
    starts = taps.amin(1, keepdim=True)
    beside = taps - starts
    if (beside == beside[:1]).all():  # alike for each pixel
        taps = beside[0]
    else:
        starts = torch.zeros_like(starts)
    place = replace(value.place(), offsets=starts.flatten().int())
    output, bounds = layout.take(node, value.geometry.zero).place(), target.bounds
    if taps.equal(torch.arange(channels)):  # the largest of one code is itself
        alone = torch.zeros(1, dtype=torch.int32)
        return Maximum(
            name=node.name, channels=channels, bounds=bounds, input=place, output=output, taps=alone
        )
    return Gather(
        name=node.name, channels=channels, bounds=bounds, input=place, output=output,
        taps=taps.int().contiguous(),
    )  # fmt: skip


def look_up(layout: Layout, node: fx.Node, table: Tensor, target: Target, zero: int) -> Lookup:
    """Return the step of a function of single numbers: of whole rows, where pixels fill them."""
    before, after = layout.read(node, node.args[0]), layout.take(node, zero)
    places, channels = (before.place(), after.place()), after.geometry.channels
    filled = before.geometry.pixel == after.geometry.pixel == channels
    if filled and before.offsets is None and before.geometry.sides == after.geometry.sides:
        width = after.geometry.width
        places = _each(places[0], width), _each(places[1], width)
        channels *= width
    return Lookup(
        name=str(node.target), channels=channels, bounds=target.bounds,
        input=places[0], output=places[1], table=table,
    )  # fmt: skip


def _each(place: Place, width: int) -> Place:
    """Return the first pixel of each row."""
    return replace(place, offsets=place.offsets[::width].contiguous())


def multiply(
    layout: Layout, node: fx.Node, layer: q.QuantizedProduct, target: Target, zero: int
) -> Multiplication:
    """Return the step of a product; one factor may be a number per channel."""
    pixels = math.prod(layout.spatial(node)[1:])
    whole, other = values_read(layout, node, layer, target, broadcast=False)
    if len(whole.place().offsets) != pixels:
        whole, other = other, whole
    place = other.place()
    if len(place.offsets) != pixels:
        place = replace(place, offsets=place.offsets.expand(pixels).contiguous())
    return Multiplication(
        name=str(node.target), channels=layout.spatial(node)[0], bounds=target.bounds, other=place,
        input=whole.place(), output=layout.take(node, zero).place(), scale=float(layer.ratio()),
    )  # fmt: skip


def table_of(layer: q.QuantizedAffine) -> Tensor:
    """Return what a layer makes of each code."""
    codes = torch.arange(INT8_MIN, INT8_MAX + 1, dtype=torch.int8)
    table: Tensor = layer(codes.to(layer.output_scale.device))
    return table.cpu()


def clamp(layout: Layout, node: fx.Node, layer: q.ClampCodes, target: Target) -> Map:
    """Return the step of a clamp: the codes, as those of a zero point of 0, within other bounds."""
    value = layout.read(node, node.args[0])
    output = layout.take(node, value.geometry.zero).place()
    return Map(
        name=str(node.target), channels=value.geometry.channels, scale=1.0,
        bounds=(target.zero(layer.low), target.zero(layer.high)),
        input=replace(value.place(), zero=0), output=replace(output, zero=0),
    )  # fmt: skip


def interpolate(
    layout: Layout, node: fx.Node, layer: q.QuantizedInterpolation, target: Target, zero: int
) -> Interpolation:
    """Return the step of a linear interpolation of images or signals."""
    value, sides = layout.read(node, node.args[0]), layout.shapes[node][2:]
    geometry = value.geometry
    given = layout.shapes[node.args[0]][2:]  # type: ignore[index]
    near = layer.neighbours(given, sides if len(node.args) > 1 else None)
    near = [ALONE] * (DIMS - len(near)) + near
    _, rows, columns = (n.weights.cpu() for n in near)
    down, right = geometry.row * (geometry.height > 1), geometry.pixel * (geometry.width > 1)
    return Interpolation(
        name=str(node.target), channels=geometry.channels, bounds=target.bounds,
        input=replace(value.place(), offsets=geometry.offsets(*(n.first.cpu() for n in near))),
        output=layout.take(node, zero).place(), across=len(columns), scale=float(layer.ratio()),
        taps=torch.tensor([0, right, down, down + right], dtype=torch.int32),
        weights=torch.cat([columns, rows]).int().contiguous(),
    )  # fmt: skip
