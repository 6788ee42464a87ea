"""Units, which go together, and widths: the units that lie alike in the same tensors."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from compression.channels.walk import PACKED, Channels, Place


@dataclass(frozen=True, slots=True)
class Width:
    """A number of channels that can be chosen.

    - `units`: the root labels; of each, all channels go or none.
    - `places`: the tensors and axes in which it lies, and how many channels of a unit do.
    """

    units: Tensor
    places: dict[tuple[Place, int], int]

    def step(self, channels: Channels, multiple_of: int) -> int:
        """Return of how many units what stays is a multiple, so that its layers' widths are.

        A layer that has no more than `multiple_of` channels of it takes the half, until it fits twice.
        """
        steps = []
        for count in self._counts(channels):
            fitting = multiple_of
            while fitting > 1 and fitting >= count * len(self.units):
                fitting //= 2
            steps.append(fitting // math.gcd(fitting, count))
        return math.lcm(*steps)

    def channels(self, channels: Channels) -> int:
        """Return how many channels a unit has in the layer that makes the fewest of them."""
        return min(self._counts(channels))

    def _counts(self, channels: Channels) -> list[int]:
        """Return how many channels of a unit each layer makes."""
        return [
            held // PACKED.get(place.attribute, 1)
            for (place, axis), held in self.places.items()
            if (place, axis) in channels.made
        ]


def widths_of(channels: Channels) -> list[Width]:
    """Return the widths of a network, in the order of its layers; those that must stay are none."""
    labels = channels.labels
    keys = list(channels.owned)
    generator = torch.Generator().manual_seed(0)
    marks = torch.randint(1, 2**40, (len(keys),), generator=generator)
    signature = torch.zeros(len(labels), dtype=torch.long)
    counts = []
    for key, mark in zip(keys, marks, strict=True):
        movable = labels.movable(channels.owned[key])
        held = torch.bincount(movable[movable > 0], minlength=len(labels))
        counts.append(held)
        signature += held * mark  # sums that are equal by chance are one in 2^40
    found: dict[int, list[int]] = {}
    for root in signature.nonzero().view(-1).tolist():
        found.setdefault(int(signature[root]), []).append(root)
    widths = []
    for roots in found.values():
        first = roots[0]
        places = {k: int(held[first]) for k, held in zip(keys, counts, strict=True) if held[first]}
        if any(key in channels.made for key in places):
            widths.append(Width(torch.tensor(roots), places))
    return widths


def kept_reasons(channels: Channels) -> dict[str, str]:
    """Return the layers all of whose own channels must stay, by dotted name, and why."""
    reasons = {}
    for place, numbers in _own_reasons(channels):
        if bool((numbers >= 0).all()):
            reason = channels.labels.reason(int(numbers.max()))
            reasons[f"{place.module}.{place.attribute}"] = f"its channels stay: {reason}"
    return reasons


def free_channels(channels: Channels) -> dict[str, tuple[int, int]]:
    """Return how many of each layer's own channels may go, and how many it has, by dotted name."""
    found: dict[str, tuple[int, int]] = {}
    for place, numbers in _own_reasons(channels):
        parts = PACKED.get(place.attribute, 1)
        free, total = int((numbers < 0).sum()) // parts, len(numbers) // parts
        found[place.module] = max(found.get(place.module, (0, 0)), (free, total))
    return found


def _own_reasons(channels: Channels) -> Iterator[tuple[Place, Tensor]]:
    """Yield each tensor whose channels are its layer's own: why each stays, as a number, -1 if not."""
    frozen = channels.labels.frozen()
    for place, axis in channels.owned:
        if (place, axis) in channels.made:
            yield place, frozen[channels.owned[place, axis]]
