"""How many images are predicted at a time: by all steps, and by each before the next one."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch

from compression.integer.native.packing import NativeWeights
from compression.integer.steps import Place, Product, RealPlace, Step

CHUNK_BYTES = 2**24
"""What the activations of a chunk of images may take."""
IMAGES_EACH = 8
"""Images of a thread that a chunk holds all the same: each reads the weights once for them."""
MOST_BYTES = 2**30
"""What activations may take at most, beside those of one image."""
STEP_BYTES = 2**20
"""What a step may read and write before the next one reads it: half of a core's own cache."""
REAL_BYTES = 4
ROLES = {"input": 1, "output": 2, "residual": 4, "value": 8, "rest": 16}
"""The bits of `enum role`."""
NAMES = {role: role for role in ROLES} | {"other": "residual", "key": "residual", "third": "value"}
"""The roles of what steps read and write, by its name there."""


def images_of_chunk(images: int, image_bytes: int) -> int:
    """Return how many images are computed at a time, of so many bytes each: as many by each thread."""
    threads = torch.get_num_threads()
    chunk = max(CHUNK_BYTES // image_bytes, min(IMAGES_EACH * threads, MOST_BYTES // image_bytes))
    return min(images, chunk - chunk % threads if chunk > threads else chunk)


@dataclass(frozen=True, slots=True)
class Pace:
    """How many images a thread takes through a step, before it goes on to the next step.

    `passing` has the bits of the roles whose memory no step of another pace needs.
    """

    at_once: int
    passing: int


def paces(steps: Sequence[Step], images: int, *, keep: bool) -> list[Pace]:
    """Return the pace of each step with at most so many images, which is all of them with `keep`.

    Maps become smaller from step to step: a step never takes fewer images than the one before it.
    """
    few = [images if keep else min(images, _few(step)) for step in steps]
    at_once = list(accumulate(reversed(few), min))[::-1]
    paces_of: dict[int, set[int]] = {}
    for pace, step in zip(at_once, steps, strict=True):
        for place in _places(step).values():
            paces_of.setdefault(place.memory.data_ptr(), set()).add(pace)
    return [Pace(pace, _passing(step, paces_of)) for pace, step in zip(at_once, steps, strict=True)]


def _few(step: Step) -> int:
    """Return for how many images what a step passes on stays in the cache.

    Its weights come from beyond the cache for each few images: it takes more, whose inputs stay there
    beside a slice of weights, where that fetches fewer bytes of an image, the codes included.
    """
    moved = max(1, _moved_bytes(step))
    few = max(1, STEP_BYTES // moved)
    if not isinstance(step, Product) or not isinstance(step.weights, NativeWeights):
        return few
    weights = step.weights.weights.numel()
    a_slice = weights // -(-step.channels // step.weights.slice)
    more = (2 * STEP_BYTES - a_slice) // step.input.stride if step.input.stride else few
    if more <= few:
        return few
    more = 2 ** (more.bit_length() - 1)  # the same of several steps: they follow one another
    return more if weights / few > moved + weights / more else few


def _passing(step: Step, paces_of: dict[int, set[int]]) -> int:
    alone = [r for r, place in _places(step).items() if len(paces_of[place.memory.data_ptr()]) == 1]
    return sum(ROLES[role] for role in alone)


def _places(step: Step) -> dict[str, Place]:
    found = {role: getattr(step, name, None) for name, role in NAMES.items() if hasattr(step, name)}
    return {role: place for role, place in found.items() if isinstance(place, Place)}


def _moved_bytes(step: Step) -> int:
    """Return what a step reads and writes of an image's activations."""
    real = step.output.stride * REAL_BYTES if isinstance(step.output, RealPlace) else 0
    return real + sum(place.stride for place in _places(step).values())
