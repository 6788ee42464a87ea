"""Concatenations of channels that need no step: their parts are written where they belong.

A part lies in the memory of what it is concatenated to, and so does what is concatenated of the first
of these parts: each step of a dense block adds its channels to those before.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from torch import fx, nn

from compression.integer.steps.readings import Readings
from compression.quantization import modules as q


@dataclass(frozen=True, slots=True)
class Beside:
    """A value's codes lie in the memory of `owner`, from channel `begin` of each pixel on."""

    owner: fx.Node
    begin: int


def beside(readings: Readings) -> dict[fx.Node, Beside]:
    """Return which values lie in another's memory, and those others themselves."""
    found: dict[fx.Node, Beside] = {}
    joins = [node for node in readings.order if _copies(readings, node)]
    for join in sorted(joins, key=lambda node: len(node.args), reverse=True):
        longer = (found[n].owner for n in joins if n in found and _begins(n, join))
        owner = next(longer, None)
        if owner is not None and all(_is_filter(readings, user) for user in join.users):
            found[join] = Beside(owner, 0)
        elif owner is None and not any(part in found for part in join.args):
            parts = dict(_parts(readings, join))
            if parts:
                found |= parts | {join: Beside(join, 0)}
    return found


def _layer(readings: Readings, node: fx.Node) -> nn.Module | None:
    return readings.module(node) if readings.computes(node) else None


def _copies(readings: Readings, node: fx.Node) -> bool:
    """Tell whether a node concatenates channels of codes that stay as they are."""
    layer = _layer(readings, node)
    if not isinstance(layer, q.QuantizedJoin) or isinstance(layer, q.QuantizedRest):
        return False
    if any(isinstance(readings.module(user), q.QuantizedRest) for user in node.users):
        return False
    if layer.dim is None or layer.held_places:
        return False
    rank = len(readings.shapes[node])
    same = (layer.input_scales == layer.output_scale).all()
    same &= (layer.input_zero_points == layer.output_zero_point).all()
    return bool(same) and layer.dim % rank == readings.axis(node) % rank


def _parts(readings: Readings, join: fx.Node) -> Iterator[tuple[fx.Node, Beside]]:
    """Yield where each part of a concatenation lies; nothing where one must lie elsewhere."""
    if len(set(join.args)) < len(join.args):
        return
    if not all(_is_part(readings, part, join) for part in readings.operands(join)):
        return
    begin = 0
    for part in readings.operands(join):
        yield part, Beside(join, begin)
        begin += readings.spatial(part)[0]


def _is_part(readings: Readings, node: fx.Node, join: fx.Node) -> bool:
    """Tell whether a layer can write its codes into a concatenation, and those who read them may."""
    layer = _layer(readings, node)
    written = isinstance(layer, q.QuantizedMean | q.OnCodes) or (
        isinstance(layer, q.QuantizedLayer)
        and not layer.transposed
        and layer.output_zero_point is not None
    )
    return (
        written
        and len(readings.shapes[node]) == len(readings.shapes[join])
        and readings.axis(node) == readings.axis(join)
        and readings.spatial(node)[1:] == readings.spatial(join)[1:]
        and all(_joins_channels(readings, user) for user in node.users)
    )


def _joins_channels(readings: Readings, node: fx.Node) -> bool:
    layer = _layer(readings, node)
    return isinstance(layer, q.QuantizedJoin) and layer.dim is not None


def _begins(whole: fx.Node, join: fx.Node) -> bool:
    """Tell whether the parts of a concatenation are the first of another's."""
    return whole.args[: len(join.args)] == join.args


def _is_filter(readings: Readings, node: fx.Node) -> bool:
    """Tell whether a layer has one filter per channel: it finds them in wider pixels, too."""
    layer = _layer(readings, node)
    if not isinstance(layer, q.QuantizedLayer) or layer.linear or layer.transposed:
        return False
    return layer.codes.shape[1] == 1 and layer.options["groups"] == len(layer.codes)
