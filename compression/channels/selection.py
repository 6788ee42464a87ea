"""Which units go: the cheapest by score for what they save, until a budget is met."""

import heapq
import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from compression.channels.costs import Cost
from compression.channels.units import Width


def select(
    widths: Sequence[Width],
    scores: Tensor,
    cost: Cost,
    *,
    budget: float,
    steps: Sequence[int],
    channels: Sequence[int],
    at_least: float,
    saving: float,
) -> tuple[Tensor, list[int]]:
    """Return the units that go (bool per label), and how many of each width stay.

    Units of a width go in the order of their scores, so many at once that a multiple of its step
    stays, and at least the fraction `at_least` of it. Of all widths the next to shrink is the one
    that loses the least score per channels^(1 - saving) * saved^saving, until the cost is at most
    `budget` or nothing is left to take; `channels` tells of each width how many a unit has. With
    `saving` 1 a knapsack is filled by its densest item, as for scores that are losses (HALP,
    arXiv:2110.10811); with 0 the cost only says when to stop.
    """
    kept = [len(width.units) for width in widths]
    orders = [width.units[scores[width.units].argsort(stable=True)] for width in widths]
    losses = [F.pad(scores[order].double().cumsum(0), (1, 0)) for order in orders]
    floors = [max(1, math.ceil(at_least * len(width.units))) for width in widths]
    total = cost.of(kept)

    def density(number: int) -> float | None:
        count = next_count(kept[number], steps[number], floors[number])
        saved = 0.0 if count is None else cost.saved(kept, number, count)
        if count is None or saved <= 0:
            return None
        size = len(orders[number])
        lost = float(losses[number][size - count] - losses[number][size - kept[number]])
        fewer = (kept[number] - count) * channels[number]
        return lost / (fewer ** (1 - saving) * saved**saving)

    heap = [
        (found, number) for number in range(len(widths)) if (found := density(number)) is not None
    ]
    heapq.heapify(heap)
    while total > budget and heap:
        expected, number = heapq.heappop(heap)
        found = density(number)  # what it saves has changed where other widths shrank
        if found is None:
            continue
        if heap and found > max(expected, heap[0][0]):
            heapq.heappush(heap, (found, number))
            continue
        count = next_count(kept[number], steps[number], floors[number])
        assert count is not None
        total -= cost.saved(kept, number, count)
        kept[number] = count
        if (found := density(number)) is not None:
            heapq.heappush(heap, (found, number))
    gone = torch.zeros(len(scores), dtype=torch.bool)
    for order, left in zip(orders, kept, strict=True):
        gone[order[: len(order) - left]] = True
    return gone, kept


def next_count(kept: int, step: int, floor: int) -> int | None:
    """Return the next smaller multiple of `step` that is at least `floor`; None for none."""
    count = (kept - 1) // step * step
    return count if count >= max(floor, 1) else None
