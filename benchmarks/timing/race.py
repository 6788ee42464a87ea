"""Times of several competitors, woken in turn in random order, so that their rounds interleave."""

import time
from collections.abc import Callable, Mapping

import numpy as np

from compression.errors import CompressionError

WARMUP_ROUNDS = 1
MIN_ROUNDS = 12
MAX_ROUNDS = 60


def race(
    competitors: Mapping[str, Callable[[], float]],
    *,
    budget_s: float,
    seed: int = 0,
    max_rounds: int = MAX_ROUNDS,
) -> dict[str, tuple[float, ...]]:
    """Return each competitor's seconds per round: 60 rounds, or fewer when the budget is spent.

    At least 12 in any case. The first round warms up and is dropped.
    """
    if max_rounds < 1:
        raise CompressionError(f"max_rounds must be at least 1, found {max_rounds}")
    random = np.random.default_rng(seed)
    names = list(competitors)
    times: dict[str, list[float]] = {name: [] for name in names}
    started = time.perf_counter()
    for done in range(WARMUP_ROUNDS + max_rounds):
        for i in random.permutation(len(names)):
            times[names[i]].append(competitors[names[i]]())
        spent = time.perf_counter() - started > budget_s
        if spent and done + 1 - WARMUP_ROUNDS >= min(MIN_ROUNDS, max_rounds):
            break
    return {name: tuple(found[WARMUP_ROUNDS:]) for name, found in times.items()}
