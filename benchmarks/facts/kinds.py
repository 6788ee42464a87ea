"""Types of recorded facts: which plain JSON values belong to each."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from compression.checks import is_whole


@dataclass(frozen=True, slots=True)
class Kind:
    """A type of values: what it is called, and which plain JSON values are of it."""

    name: str
    holds: Callable[[Any], bool]


def _number(value: Any) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    return is_whole(value)


def _count(value: Any) -> bool:
    return is_whole(value) and value >= 0


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _share(value: Any) -> bool:
    return _number(value) and 0 <= value <= 1


def choice(*words: str) -> Kind:
    """Return the kind of one of these words."""
    return Kind(" or ".join(words), lambda value: isinstance(value, str) and value in words)


def list_of(kind: Kind) -> Kind:
    """Return the kind of a list of such values."""
    return Kind(
        f"list of {kind.name}",
        lambda value: isinstance(value, list) and all(map(kind.holds, value)),
    )


def mapping_of(kind: Kind) -> Kind:
    """Return the kind of an object that holds such values by name."""
    return Kind(
        f"{kind.name} by name",
        lambda value: isinstance(value, dict) and all(map(kind.holds, value.values())),
    )


TEXT = Kind("text", _text)
FLAG = Kind("true or false", lambda value: isinstance(value, bool))
COUNT = Kind("count", _count)
POSITIVE_COUNT = Kind("count above 0", lambda value: _count(value) and value > 0)
NUMBER = Kind("number", _number)
QUANTITY = Kind("number from 0", lambda value: _number(value) and value >= 0)
POSITIVE = Kind("number above 0", lambda value: _number(value) and value > 0)
SHARE = Kind("number from 0 to 1", _share)
TEXTS = list_of(TEXT)
SHARES = list_of(SHARE)
NUMBERS = list_of(NUMBER)
OBJECTS = list_of(Kind("object", lambda value: isinstance(value, dict)))
COUNTS = mapping_of(COUNT)
DURATIONS = mapping_of(POSITIVE)
TARGET = Kind("number or number by name", lambda v: _number(v) or mapping_of(NUMBER).holds(v))
