"""Steps of pools: the largest code of each window, and averages."""

from collections.abc import Iterator
from dataclasses import replace

from torch import fx

from compression.integer.steps.layout import Layout, Value
from compression.integer.steps.step import Maximum, Mean, Place
from compression.integer.steps.target import Target
from compression.integer.steps.windows import Window, mean_window, window_of
from compression.integer.windows import POOL_DIMS
from compression.quantization import modules as q


def max_window(layout: Layout, node: fx.Node, layer: q.OnCodes) -> Window | None:
    """Return how a max-pool slides over what it reads; None for another rank than the pool's."""
    value, rank = layout.read(node, node.args[0]), len(layout.shapes[node.args[0]])  # type: ignore[index]
    fits = rank == POOL_DIMS[type(layer.function)] + 2
    return window_of(layer, value.geometry.sides) if fits else None


def largest(layout: Layout, node: fx.Node, window: Window, target: Target) -> Iterator[Maximum]:
    """Yield the steps of a max-pool."""
    value, outputs = layout.read(node, node.args[0]), layout.spatial(node)
    geometry, (lowest, _) = value.geometry, target.bounds
    beyond = window.border(geometry.height, geometry.width, outputs[1:])
    output = layout.take(node, geometry.zero).place()
    if geometry.zero <= lowest or not any(beyond):
        yield _maximum(node, value, window, outputs, output, target)
        return
    # The border must lose to every code: the pool reads a copy within another.
    around = replace(geometry, border=beyond, zero=lowest)
    copy = Value(around, layout.buffers.take(around), around.stride)
    alone = Window([1, 1], [1, 1], [0, 0], [1, 1])
    yield _maximum(node, value, alone, around.sides, copy.place(), target)
    yield _maximum(node, copy, window, outputs, output, target)
    layout.buffers.give_back(around, copy.memory)


def _maximum(
    node: fx.Node, value: Value, window: Window, sides: list[int], output: Place, target: Target
) -> Maximum:
    """Return the largest codes of windows over `value`; `sides` are those of the output."""
    geometry = value.geometry
    offsets = window.pixel_offsets(geometry, sides[1:])
    return Maximum(
        name=str(node.target), channels=geometry.channels, bounds=target.bounds,
        input=replace(value.place(), offsets=offsets), output=output,
        taps=window.tap_offsets(geometry).flatten(),
    )  # fmt: skip


def average(layout: Layout, node: fx.Node, layer: q.QuantizedMean, target: Target) -> Mean | None:
    """Return the step of an average; None where its windows are not all alike."""
    value, outputs = layout.read(node, node.args[0]), layout.spatial(node)
    geometry, rank = value.geometry, len(layout.shapes[node.args[0]])  # type: ignore[index]
    window = mean_window(layer.pool, geometry.sides, outputs[1:], rank)
    if window is None:
        return None
    offsets = window.pixel_offsets(geometry, outputs[1:])
    return Mean(
        name=str(node.target), channels=outputs[0], bounds=target.bounds,
        input=replace(value.place(), offsets=offsets),
        output=layout.take(node, target.zero(layer.output_zero_point)).place(),
        rows=window.tap_offsets(geometry)[:, 0].contiguous(), across=window.size[1],
        pixel=geometry.pixel, scale=float(layer.input_scale / layer.output_scale),
    )  # fmt: skip
