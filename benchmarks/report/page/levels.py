"""Where a series of runs changed its level: exactly, or beyond the noise of its measurement."""

import importlib.util
import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

Z = 2.8
"""Standard errors that two levels lie apart, at least: more rarely than once in 100 runs by chance."""
LEAST_STEP = 0.02
"""A smaller change of a speed-up is none: between runs one commit moves as far."""
LEAST_ERROR = 0.004
"""The standard error of a logarithm that no run undercuts: its interval knows nothing of other runs."""
FEWEST_RUNS = 6
"""With fewer the noise between runs cannot be told."""
WIDTH = 2 * 1.959964
"""Standard errors in a 95% interval."""

Interval = tuple[float, float, float]
"""A speed-up and the ends of its 95% interval."""


def exact_changes(values: Sequence[float]) -> list[int]:
    """Return where a value differs from the one before.

    >>> exact_changes([7, 7, 8, 8])
    [2]
    """
    return [i for i in range(1, len(values)) if values[i] != values[i - 1]]


def can_judge() -> bool:
    """Tell whether noisy series can be judged: ruptures is installed."""
    return importlib.util.find_spec("ruptures") is not None


def noisy_changes(ratios: Sequence[Interval]) -> list[int]:
    """Return where the level of speed-ups changed, as the index of the first run of the new one.

    Binary segmentation (Scott and Knott 1974, as in ruptures; Truong, Oudre and Vayatis 2020) of the
    logarithms, each weighed by its 95% interval. Where runs scatter more than their intervals say,
    all errors grow by that factor, from the median of the successive differences.
    """
    if len(ratios) < FEWEST_RUNS:
        return []
    logs = np.log([value for value, _, _ in ratios])
    errors = np.maximum([math.log(high / low) / WIDTH for _, low, high in ratios], LEAST_ERROR)
    weights = 1 / (errors * _scatter(logs, errors)) ** 2
    found = _segments(logs, weights)
    return _far_apart(logs, weights, found)


def _scatter(logs: np.ndarray, errors: np.ndarray) -> float:
    """Return how many times as far as their errors neighbours lie apart, at least once."""
    apart = np.abs(np.diff(logs)) / np.hypot(errors[1:], errors[:-1])
    return max(1.0, 1.4826 * float(np.median(apart)))


def _segments(logs: np.ndarray, weights: np.ndarray) -> list[int]:
    """Return where the segments begin whose means lie Z standard errors apart, but for the first."""
    from ruptures import Binseg  # here: scipy takes a third of a second
    from ruptures.base import BaseCost

    sums = [np.concatenate([[0.0], np.cumsum(weights * logs**k)]).tolist() for k in range(3)]

    class Spread(BaseCost):  # type: ignore[misc]
        """The weighted squared error of a mean: a split gains the square of its z-score."""

        model, min_size = "", 1

        def fit(self, signal: np.ndarray) -> "Spread":
            self.signal = signal.reshape(-1, 1)
            return self

        def error(self, start: int, end: int) -> float:
            weight, first, second = (total[end] - total[start] for total in sums)
            return float(second - first * first / weight)

    method = Binseg(custom_cost=Spread(), min_size=1, jump=1).fit(logs)
    return [int(end) for end in method.predict(pen=Z * Z)[:-1]]


def _far_apart(logs: np.ndarray, weights: np.ndarray, starts: list[int]) -> list[int]:
    """Return the starts whose levels differ by LEAST_STEP, the smallest step left out first."""
    while starts:
        ends = [0, *starts, len(logs)]
        means = [np.average(logs[a:b], weights=weights[a:b]) for a, b in pairwise(ends)]
        steps = np.abs(np.diff(means))
        least = int(np.argmin(steps))
        if steps[least] >= math.log1p(LEAST_STEP):
            break
        starts = starts[:least] + starts[least + 1 :]
    return starts
