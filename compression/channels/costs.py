"""What a network costs as a function of the widths that stay: MACs, parameters or milliseconds."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from compression.channels.units import Width
from compression.channels.walk import Channels
from compression.layers import same_memory

Kept = Sequence[int]
"""How many units stay, by width."""


@dataclass(frozen=True, slots=True)
class Count:
    """A number of channels: `fixed` ones, and so many per unit that stays of some widths."""

    total: int
    fixed: int
    per_unit: dict[int, int]

    def of(self, kept: Kept) -> int:
        """Return the number where so many units stay."""
        return self.fixed + sum(count * kept[width] for width, count in self.per_unit.items())


@dataclass(frozen=True, slots=True)
class Term:
    """A part of a cost, which depends on one or two counts."""

    counts: tuple[Count, ...]
    cost: Callable[[tuple[int, ...]], float]

    def of(self, kept: Kept) -> float:
        """Return what it costs where so many units stay."""
        return self.cost(tuple(count.of(kept) for count in self.counts))


class Cost:
    """A sum of terms, and which of them each width changes."""

    def __init__(self, terms: Sequence[Term], constant: float = 0.0) -> None:
        """Add up terms, and what no width changes."""
        self.terms, self.constant = list(terms), constant
        self.touched: dict[int, list[Term]] = {}
        for term in self.terms:
            for width in {w for count in term.counts for w in count.per_unit}:
                self.touched.setdefault(width, []).append(term)

    def of(self, kept: Kept) -> float:
        """Return the cost where so many units stay."""
        return self.constant + sum(term.of(kept) for term in self.terms)

    def saved(self, kept: list[int], width: int, count: int) -> float:
        """Return what is saved where one width shrinks to `count` units."""
        touched = self.touched.get(width, [])
        before = sum(term.of(kept) for term in touched)
        fewer = [*kept[:width], count, *kept[width + 1 :]]
        return before - sum(term.of(fewer) for term in touched)


class Counter:
    """Makes counts of labels: which of them are units of which width."""

    def __init__(self, channels: Channels, widths: Sequence[Width]) -> None:
        """Look at the widths of a network."""
        self.labels = channels.labels
        self.width = torch.full((len(self.labels),), -1)
        for number, width in enumerate(widths):
            self.width[width.units] = number
        self.sizes = [len(width.units) for width in widths]

    def count(self, labels: Tensor) -> Count:
        """Return the count of channels with these labels."""
        numbers = self.width[self.labels.roots(labels)]
        present = torch.bincount(numbers[numbers >= 0], minlength=len(self.sizes)).tolist()
        per_unit = {w: n // self.sizes[w] for w, n in enumerate(present) if n}
        return Count(len(labels), int((numbers < 0).sum()), per_unit)


def macs_cost(channels: Channels, widths: Sequence[Width], total: int) -> Cost:
    """Return the multiply-accumulates, of which the network does `total` as it is."""
    counter = Counter(channels, widths)
    terms = []
    for product in channels.products:
        sides = [product.outputs] if product.inputs is None else [product.outputs, product.inputs]
        terms.append(_proportional(product.macs, tuple(map(counter.count, sides))))
    for pair in channels.pairs:
        terms.append(_proportional(pair.macs, tuple(map(counter.count, pair.sides))))
    followed = [part.macs for part in channels.products] + [part.macs for part in channels.pairs]
    return Cost(terms, total - sum(followed))


def parameters_cost(
    channels: Channels, widths: Sequence[Width], model: nn.Module, total: int
) -> Cost:
    """Return the parameters, of which the network has `total`, a tied one once."""
    counter = Counter(channels, widths)
    sides: dict[object, tuple[int, list[Count]]] = {}
    seen: set[tuple[object, int]] = set()
    for (place, axis), labels in channels.owned.items():
        tensor = getattr(model.get_submodule(place.module), place.attribute)
        key = same_memory(tensor)
        if isinstance(tensor, nn.Parameter) and (key, axis) not in seen:
            seen.add((key, axis))
            sides.setdefault(key, (tensor.numel(), []))[1].append(counter.count(labels))
    terms = [_proportional(numel, tuple(counts)) for numel, counts in sides.values()]
    return Cost(terms, total - sum(numel for numel, _ in sides.values()))


def _proportional(amount: float, counts: tuple[Count, ...]) -> Term:
    scale = amount / math.prod(count.total for count in counts)
    return Term(counts, lambda left: scale * math.prod(left))
