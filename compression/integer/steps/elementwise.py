"""Steps that take codes one by one: put elsewhere, looked up in a table, times others."""

from dataclasses import replace

import torch
from torch import Tensor, fx

from compression.integer.steps.layout import Layout, Value
from compression.integer.steps.step import (
    CodesStep,
    Gather,
    Interpolation,
    Lookup,
    Maximum,
    Multiplication,
    Place,
)
from compression.integer.steps.target import Target
from compression.quantization import modules as q
from compression.quantization.interpolation import WEIGHT_BITS


def gather(layout: Layout, node: fx.Node, target: Target) -> CodesStep:
    """Return the step that puts the codes of a node that moves them where its readers find them."""
    source, places = layout.moved[node]
    value = layout.value(source)
    channels, height, width = layout.spatial(node)
    taps = _bytes(value, places).view(channels, height * width).t()
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


def _bytes(value: Value, places: Tensor) -> Tensor:
    """Return where the numbers of an image lie that `places` counts channel by channel."""
    g = value.geometry
    pixel = places.flatten() % (g.height * g.width)
    return g.all_offsets().long()[pixel] + places.flatten() // (g.height * g.width)


def look_up(layout: Layout, node: fx.Node, table: Tensor, target: Target, zero: int) -> Lookup:
    """Return the step of a function of single numbers: of whole rows, where pixels fill them."""
    before, after = layout.value(node.args[0]), layout.take(node, zero)
    places, channels = (before.place(), after.place()), after.geometry.channels
    if before.geometry.pixel == after.geometry.pixel == channels:
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
    outputs, operands = layout.spatial(node), node.all_input_nodes
    whole, other = operands[0], operands[-1]  # one alone, where it is squared
    if layout.spatial(whole) != outputs:
        whole, other = other, whole
    place = layout.value(other).place()
    if layout.spatial(other) != outputs:
        place = replace(place, offsets=place.offsets.expand(outputs[1] * outputs[2]).contiguous())
    return Multiplication(
        name=str(node.target), channels=outputs[0], bounds=target.bounds, other=place,
        input=layout.value(whole).place(), output=layout.take(node, zero).place(),
        scale=float(layer.ratio()),
    )  # fmt: skip


def interpolate(
    layout: Layout, node: fx.Node, layer: q.QuantizedInterpolation, target: Target, zero: int
) -> Interpolation:
    """Return the step of a linear interpolation of images or signals."""
    geometry, sides = layout.value(node.args[0]).geometry, layout.shapes[node][2:]
    given = layout.shapes[node.args[0]][2:]  # type: ignore[index]
    near = layer.neighbours(given, sides if len(node.args) > 1 else None)
    firsts, weights = [n.first for n in near], [n.weights for n in near]
    if len(near) == 1:  # a signal is an image of one row
        firsts = [torch.zeros(1, dtype=torch.int64), *firsts]
        weights = [torch.tensor([[2**WEIGHT_BITS, 0]]), *weights]
    down, right = geometry.row * (geometry.height > 1), geometry.pixel * (geometry.width > 1)
    return Interpolation(
        name=str(node.target), channels=geometry.channels, bounds=target.bounds,
        input=replace(layout.value(node.args[0]).place(), offsets=geometry.offsets(*firsts)),
        output=layout.take(node, zero).place(), across=len(firsts[1]), scale=float(layer.ratio()),
        taps=torch.tensor([0, right, down, down + right], dtype=torch.int32),
        weights=torch.cat(weights[::-1]).int().contiguous(),
    )  # fmt: skip
