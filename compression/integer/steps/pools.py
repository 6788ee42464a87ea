"""Steps of pools: the largest code of each window, and averages."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import product

import torch
from torch import Tensor, fx, nn

from compression.integer.steps.geometry import Geometry
from compression.integer.steps.layout import Layout, Value
from compression.integer.steps.step import Maximum, Mean, Place
from compression.integer.steps.target import Target
from compression.integer.steps.windows import PIXEL, Window, mean_window, slid_average, window_of
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
    beyond = window.border(geometry.sides[1:], outputs[1:])
    output = layout.take(node, geometry.zero).place()
    if geometry.zero <= lowest or not any(beyond):
        yield _maximum(node, value, window, outputs, output, target)
        return
    # The border must lose to every code: the pool reads a copy within another.
    around = replace(geometry, border=beyond, zero=lowest)
    copy = Value(around, layout.buffers.take(around), around.stride)
    yield _maximum(node, value, PIXEL, around.sides, copy.place(), target)
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


def average(layout: Layout, node: fx.Node, layer: q.QuantizedMean, target: Target) -> list[Mean]:
    """Return the steps of an average, one for each size of its windows; none where it has no kernel."""
    value, outputs = layout.read(node, node.args[0]), layout.spatial(node)
    geometry, rank = value.geometry, len(layout.shapes[node.args[0]])  # type: ignore[index]
    window = mean_window(layer.pool, geometry.sides, outputs[1:], rank)
    clipped = None if window else _clipped(layer.pool, geometry, outputs[1:], rank)
    if window is None and clipped is None:
        return []
    output = layout.take(node, target.zero(layer.output_zero_point))
    whole = Mean(
        name=str(node.target), channels=outputs[0], bounds=target.bounds, input=value.place(),
        output=output.place(), rows=torch.zeros(0, dtype=torch.int32), across=0,
        pixel=geometry.pixel, scale=float(layer.input_scale / layer.output_scale),
    )  # fmt: skip
    if window is not None:
        offsets = window.pixel_offsets(geometry, outputs[1:])
        rows = window.tap_offsets(geometry)[..., 0].flatten().contiguous()
        place = replace(whole.input, offsets=offsets)
        return [replace(whole, input=place, rows=rows, across=window.size[-1])]
    return [
        replace(
            whole,
            input=replace(whole.input, offsets=geometry.offsets(*begin)),
            output=replace(whole.output, offsets=output.geometry.offsets(*index)),
            rows=replace(PIXEL, size=[*size]).tap_offsets(geometry)[..., 0].flatten().contiguous(),
            across=size[-1],
        )
        for size, begin, index in clipped or ()
    ]


Clipped = tuple[tuple[int, ...], list[Tensor], list[Tensor]]
"""The sides of windows, where these begin, and the outputs that are theirs."""


def _clipped(
    pool: nn.Module, inputs: Geometry, outputs: list[int], rank: int
) -> list[Clipped] | None:
    """Return the windows of an average that counts what it reads only, by size; None for others."""
    averages = nn.AvgPool1d | nn.AvgPool2d | nn.AvgPool3d
    if not isinstance(pool, averages) or pool.count_include_pad:
        return None
    window = slid_average(pool) if rank == POOL_DIMS[type(pool)] + 2 else None
    if window is None:
        return None
    lines = [
        _lines(n, m, *slide)
        for n, m, *slide in zip(
            inputs.sides[1:], outputs, window.size, window.stride, window.padding, strict=True
        )
    ]
    return [
        (size, [begin for begin, _ in own], [index for _, index in own])
        for size, own in (
            zip(*sides, strict=True) for sides in product(*(a.items() for a in lines))
        )
    ]


def _lines(
    inputs: int, outputs: int, size: int, stride: int, padding: int
) -> dict[int, tuple[Tensor, Tensor]]:
    """Return by the length of windows along an axis where they begin, and their outputs."""
    index = torch.arange(outputs)
    begin, end = index * stride - padding, index * stride - padding + size
    begin, end = begin.clamp_min(0), end.clamp_max(inputs)
    lengths = end - begin
    return {
        int(length): (begin[lengths == length], index[lengths == length])
        for length in lengths.unique()
    }
