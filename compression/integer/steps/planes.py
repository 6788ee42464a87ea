"""Images that only windows of stride 2 read: their even and odd rows and columns lie in planes.

What neighbouring windows read lies side by side there, as with a stride of 1, and not a pixel apart.
"""

from dataclasses import replace

from torch import fx

from compression.integer.steps.axes import FIRST
from compression.integer.steps.geometry import PLANES
from compression.integer.steps.readings import NO_BORDER, Readings
from compression.integer.steps.windows import PIXEL, Window, window_of
from compression.quantization import modules as q

CHANNELS = 64
"""A pixel of a multiple of these fills what is loaded at a time, tap by tap."""
ALONE = replace(PIXEL, stride=[1, *PLANES])
"""Pixels a step apart, of which planes would hold one in four side by side."""


def in_planes(readings: Readings) -> set[fx.Node]:
    """Return which values of a network lie in planes, if its executor reads 64 bytes at a time."""
    return {node for node in readings.order if _lies_in_planes(readings, node)}


def _lies_in_planes(readings: Readings, node: fx.Node) -> bool:
    layer = readings.module(node)
    if not isinstance(layer, q.QuantizedLayer) or layer.output_zero_point is None:
        return False
    if len(readings.shapes[node]) != 4 or readings.axis(node) != FIRST:
        return False
    windows = [_window(readings, user, node) for user in node.users]
    if readings.spatial(node)[0] % CHANNELS or all(w == ALONE for w in windows):
        return False
    border = readings.borders.get(node, NO_BORDER)
    return all(w is not None and _fits(w, border) for w in windows)


def _window(readings: Readings, user: fx.Node, node: fx.Node) -> Window | None:
    """Return how a convolution slides over a value, None for any other reader."""
    layer = readings.module(user)
    if not isinstance(layer, q.QuantizedLayer) or layer.linear or layer.transposed:
        return None
    if layer.codes.ndim != 4 or layer.codes.shape[1] == 1:  # a filter per channel reads by rows
        return None
    if node in user.args[1:] or not readings.is_read_whole(user, node):
        return None
    return window_of(layer, readings.spatial(node))


def _fits(window: Window, border: tuple[int, int, int]) -> bool:
    """Tell whether windows step from plane to the same plane, and begin in the first one."""
    sides = zip(window.size[1:], border[1:], window.padding[1:], PLANES, strict=True)
    return window.stride == [1, *PLANES] and all(
        size == 1 or (around - padding) % planes == 0 for size, around, padding, planes in sides
    )
