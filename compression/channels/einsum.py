"""Sums over letters: torch.einsum of two values, whose channels are those of a letter."""

import math

from torch import Tensor, fx

from compression.channels.values import Value
from compression.channels.walk import Pair, Walk, fixed, name_of

Sides = list[tuple[str, Value]]
"""The letters of the axes of each value."""


def einsum(walk: Walk, node: fx.Node) -> Value | None:
    """Unite the channels of each letter; None for another operator, and for other equations."""
    if name_of(node.target) != "einsum" or node.op != "call_function":
        return None
    equation, *given = node.args
    found = [walk.values.get(x) for x in given if isinstance(x, fx.Node)]
    values = [value for value in found if isinstance(value, Value)]
    *parts, output = _terms(str(equation))
    if not len(parts) == len(values) == 2:
        return None
    sides = list(zip(parts, values, strict=True))
    held = {letter: _united(walk, node, letter, sides) for letter in "".join(parts)}
    held = {letter: labels for letter, labels in held.items() if bool(labels.any())}
    left = [letter for letter in output if letter in held]
    for letter, (_, value) in ((_letter(*side), side) for side in sides):
        if letter in left[1:]:
            walk.freeze(node, "its channels lie along two axes", value)
        elif letter is not None and letter not in output and not _vanishes(letter, sides):
            walk.freeze(node, "a sum over channels that are not 0 where their weights are", value)
    _count(walk, sides, output, held)
    shape = walk.shape(node)
    if not left:
        return Value(shape)
    return Value(shape, output.index(left[0]), held[left[0]], _vanishes(left[0], sides))


def _terms(equation: str) -> list[str]:
    """Return the letters of two values and of their sum; nothing else is known."""
    terms = equation.replace(" ", "").replace("->", ",").split(",")
    known = "->" in equation and len(terms) == 3 and all(len(set(t)) == len(t) for t in terms)
    return terms if known and "".join(terms).isalpha() else [""]


def _united(walk: Walk, node: fx.Node, letter: str, sides: Sides) -> Tensor:
    """Return the labels of a letter; a size of 1 asks for nothing."""
    along = [value.along(part.index(letter)) for part, value in sides if letter in part]
    wide = [labels for labels in along if len(labels) > 1]
    for other in wide[1:]:
        walk.unite(node, wide[0], other)
    return wide[0] if wide else fixed(1)


def _letter(part: str, value: Value) -> str | None:
    return None if value.axis is None else part[value.axis]


def _vanishes(letter: str, sides: Sides) -> bool:
    """Tell whether what is multiplied is 0 where the weights of the letter's channels are."""
    return any(value.vanishes and _letter(part, value) == letter for part, value in sides)


def _count(walk: Walk, sides: Sides, output: str, held: dict[str, Tensor]) -> None:
    """Note the multiply-accumulates of a sum over letters that both values have.

    Where the sum is over channels they count as in the whole network: one that is left alone is no
    sum, and torch then multiplies number by number.
    """
    sizes: dict[str, int] = {}
    for part, value in sides:
        for letter, size in zip(part, value.shape, strict=True):
            sizes[letter] = max(size, sizes.get(letter, 1))
    summed = set(sizes) - set(output)
    if held and summed and not summed & set(held) and all(summed <= set(p) for p, _ in sides):
        walk.channels.pairs.append(Pair(math.prod(sizes.values()), tuple(held.values())))
