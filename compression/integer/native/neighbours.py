"""Pixels of few channels, side by side, filtered as one pixel of more: they fill whole vectors."""

import math
from dataclasses import replace
from typing import TypeVar

import torch

from compression.integer.native.depthwise import NativeDepthwise
from compression.integer.native.packing import BLOCK, GROUP
from compression.integer.steps import Place, Product, Step

ROUNDING, WEIGHTS, INTERLEAVING = 22, 4, 8
"""Instructions of depthwise.h for 64 channels of a pixel: for all of it, for each column that is
multiplied, and for each column that is read, which neighbours share."""
GAIN = 0.9
"""Of the instructions: what saves fewer is not worth holding the filters again."""
AnyPlace = TypeVar("AnyPlace", bound=Place)


def side_by_side(step: Step) -> Step:
    """Return a depthwise step that does the same to fewer pixels of more channels, any other itself."""
    if not isinstance(step, Product) or not isinstance(step.weights, NativeDepthwise):
        return step
    places = [place for place in (step.input, step.output, step.residual) if place is not None]
    packed, pixels = step.weights, [place for place in places if isinstance(place, Place)]
    if len(pixels) < len(places):  # real outputs are stored one by one
        return step
    breaks = torch.stack([place.offsets.diff() != step.channels for place in pixels]).any(dim=0)
    times = _best(packed, math.gcd(packed.across, *(breaks.nonzero()[:, 0] + 1).tolist()))
    if times == 1:
        return step
    assert isinstance(step.output, Place)
    return replace(
        step, channels=step.channels * times, weights=packed.repeated(times),
        input=_every(step.input, times), output=_every(step.output, times),
        residual=None if step.residual is None else _every(step.residual, times),
        bias=step.bias.repeat(times), multiplier=step.multiplier.repeat(times),
    )  # fmt: skip


def _every(place: AnyPlace, times: int) -> AnyPlace:
    return replace(place, offsets=place.offsets[::times].contiguous())


def _best(packed: NativeDepthwise, run: int) -> int:
    """Return how many pixels of a run are filtered side by side in the fewest instructions."""
    divisors = [n for n in range(1, min(run, BLOCK) + 1) if run % n == 0]
    counts = {n: _instructions(packed, n) for n in divisors}
    best = min(divisors, key=counts.__getitem__)
    return best if counts[best] < GAIN * counts[1] else 1


def _instructions(packed: NativeDepthwise, times: int) -> float:
    """Return the instructions per pixel, where so many lie side by side.

    Four neighbours share the columns that they have in common: none where a step is as wide as a
    window.
    """
    columns, four_rows = packed.columns, len(packed.rows) // GROUP
    read = (3 * times + columns) / 4 if times < columns else columns
    block = ROUNDING + four_rows * (WEIGHTS * columns + INTERLEAVING * read)
    return block * -(-times * packed.channels // BLOCK) / times
