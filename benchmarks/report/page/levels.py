"""Where a series of runs changed its level: exactly, or beyond the noise of its measurement."""

import importlib.util
import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

FALSE_ALARMS = 0.01
"""Per run of one commit, of all series that are judged together."""
MOST_FREEDOM = 12
"""Degrees of freedom of Student's t, at most: noise between runs has heavier tails than normal."""
LEAST_STEP = 0.02
"""A smaller change of a speed-up is none: between runs one commit moves as far."""
LEAST_ERROR = 0.004
"""The standard error of a logarithm that no run undercuts: its interval knows nothing of other runs."""
LEAST_SHARE = 0.8
"""The share of the median error that no run undercuts, for the same reason."""
FEWEST_RUNS = 6
"""With fewer the noise between runs cannot be told."""
SOON = 3
"""Runs within which a step is to be found."""
POWER = NormalDist().inv_cdf(0.975)
"""Standard errors that a step lies above what is needed: in recorded noise it is found 4 times of 5."""
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


def noisy_changes(ratios: Sequence[Interval], *, series: int = 1) -> list[int]:
    """Return where the level of speed-ups changed, as the index of the first run of the new one.

    Binary segmentation (Scott and Knott 1974, as in ruptures; Truong, Oudre and Vayatis 2020) of the
    logarithms, each weighed by its 95% interval, proposes changes; those stay whose levels differ by
    Student's t test, of runs that scatter as far as they do about their levels. Where a run adds to
    many `series`, FALSE_ALARMS are those of all of them (Bonferroni).
    """
    if len(ratios) < FEWEST_RUNS:
        return []
    logs, errors = _measured(ratios)
    limit = _limit(series)
    proposed = _segments(logs, 1 / (errors * _scatter(logs, errors)) ** 2, limit)
    return _far_apart(logs, 1 / errors**2, proposed, limit)


def smallest_step(ratios: Sequence[Interval], starts: Sequence[int], *, series: int = 1) -> float:
    """Return the smallest step, as a share, that noisy_changes finds within SOON runs 4 times of 5.

    The noise is that of `ratios` about the levels that begin at `starts`.
    """
    logs, errors = _measured(ratios)
    levels = _levels(logs, 1 / errors**2, starts)
    newer = SOON / float(np.median(errors)) ** 2
    error = levels.spread * math.sqrt(1 / levels.weights[-1] + 1 / newer)
    needed = _student(_limit(series), levels.freedom + SOON - 1) * error
    return math.expm1(max(needed, math.log1p(LEAST_STEP)) + POWER * error)


def _measured(ratios: Sequence[Interval]) -> tuple[np.ndarray, np.ndarray]:
    """Return the logarithms and their standard errors."""
    errors = np.array([math.log(high / low) / WIDTH for _, low, high in ratios])
    least = max(LEAST_ERROR, LEAST_SHARE * float(np.median(errors)))
    return np.log([value for value, _, _ in ratios]), np.maximum(errors, least)


def _limit(series: int) -> float:
    """Return the standard errors that two levels of normal noise lie apart, at least."""
    return NormalDist().inv_cdf(1 - FALSE_ALARMS / series / 2)


def _student(limit: float, freedom: int) -> float:
    """Return the quantile of Student's t that a normal `limit` stands for (Wallace 1959)."""
    freedom = min(freedom, MOST_FREEDOM)
    exponent = (limit * (8 * freedom + 3) / (8 * freedom + 1)) ** 2 / freedom
    return math.sqrt(freedom * math.expm1(exponent))


def _scatter(logs: np.ndarray, errors: np.ndarray) -> float:
    """Return how many times as far as their errors neighbours lie apart, at least once."""
    apart = np.abs(np.diff(logs)) / np.hypot(errors[1:], errors[:-1])
    return max(1.0, 1.4826 * float(np.median(apart)))


def _segments(logs: np.ndarray, weights: np.ndarray, limit: float) -> list[int]:
    """Return where the segments begin whose means lie `limit` errors apart, but for the first."""
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
    return [int(end) for end in method.predict(pen=limit * limit)[:-1]]


@dataclass(frozen=True, slots=True)
class _Levels:
    """The levels' means and weights, and how many times as far as their errors runs lie from them."""

    means: np.ndarray
    weights: np.ndarray
    freedom: int
    spread: float


def _levels(logs: np.ndarray, weights: np.ndarray, starts: Sequence[int]) -> _Levels:
    begins = [0, *starts]
    sums = np.add.reduceat(weights, begins)
    means = np.add.reduceat(weights * logs, begins) / sums
    away = logs - np.repeat(means, np.diff([*begins, len(logs)]))
    freedom = max(len(logs) - len(begins), 1)
    return _Levels(means, sums, freedom, max(1.0, math.sqrt(np.sum(weights * away**2) / freedom)))


def _far_apart(logs: np.ndarray, weights: np.ndarray, starts: list[int], limit: float) -> list[int]:
    """Return the starts whose levels lie as far apart as they must, the weakest left out first."""
    while starts:
        levels = _levels(logs, weights, starts)
        errors = levels.spread * np.sqrt(1 / levels.weights[1:] + 1 / levels.weights[:-1])
        needed = np.maximum(_student(limit, levels.freedom) * errors, math.log1p(LEAST_STEP))
        reached = np.abs(np.diff(levels.means)) / needed
        least = int(np.argmin(reached))
        if reached[least] >= 1:
            break
        starts = starts[:least] + starts[least + 1 :]
    return starts
