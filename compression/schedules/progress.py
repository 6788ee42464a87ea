"""How far a training is, in optimizer steps."""

import math
from collections.abc import Callable

from torch import nn

from compression.checks import is_whole
from compression.errors import CompressionError
from compression.training import Labelled, Recipe, as_split, feed_of


def count_steps(model: nn.Module, train: Labelled, recipe: Recipe) -> int:
    """Return the optimizer steps of `fit` on `train` by `recipe`; raises what that raises."""
    count = len(as_split(train))
    return feed_of(model, train, recipe).steps(count, recipe.batch_size) * recipe.epochs


def check_count(name: str, value: int, most: int | None = None, of: str = "") -> None:
    """Refuse what is no whole number from 1, up to `most` of `of` where it is given."""
    if not is_whole(value) or value < 1:
        raise CompressionError(f"{name} must be a whole number of at least 1, found {value!r}")
    if most is not None and value > most:
        raise CompressionError(
            f"{name} must be at most {most}, {of}, found {value}; lower it, or train for more epochs"
        )


def check_number(name: str, value: float, fits: Callable[[float], bool], wanted: str) -> None:
    """Refuse what is no finite number that `fits`, which `wanted` says in words."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or not fits(value):
        raise CompressionError(f"{name} must be {wanted}, found {value!r}")
