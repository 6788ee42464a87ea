"""The ratio of interleaved times, its interval, and how many pairs it takes."""

from collections.abc import Iterator

import numpy as np
import pytest

from benchmarks.timing.speed_up import MIN_PAIRS, Pairs, interleave, speed_up
from compression.errors import CompressionError


def noisy(seconds: float, seed: int) -> Iterator[float]:
    random = np.random.default_rng(seed)
    while True:
        yield seconds * (1 + 0.1 * random.random())


def test_the_ratio_of_a_technique_twice_as_fast_is_two() -> None:
    slow, fast = noisy(2.0, 0), noisy(1.0, 1)
    pairs = interleave(lambda: next(slow), lambda: next(fast), seed=0, budget_s=1)
    assert len(pairs.baseline_s) == 80
    ratio = speed_up(pairs)
    assert ratio.low < ratio.value < ratio.high
    assert ratio.low == pytest.approx(2, rel=0.03)
    assert ratio.high == pytest.approx(2, rel=0.03)
    assert speed_up(pairs) == ratio


def test_a_spent_budget_stops_early_but_not_before_a_minimum() -> None:
    pairs = interleave(lambda: 1.0, lambda: 1.0, seed=0, budget_s=0)
    assert len(pairs.technique_s) == MIN_PAIRS


@pytest.mark.parametrize(("seconds", "pairs"), [(1.0, 80), (1e-3, 125), (1e-6, 400)])
def test_short_predictions_are_measured_more_often(seconds: float, pairs: int) -> None:
    found = interleave(lambda: seconds, lambda: seconds, seed=0, budget_s=60)
    assert len(found.technique_s) == pytest.approx(pairs, abs=1)


def test_warming_up_takes_its_seconds_and_three_pairs_at_least(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for warmup_s, dropped in ((0.0, 3), (10.0, 5)):
        now = [0.0]

        def timed(now: list[float] = now) -> float:
            now[0] += 1.0
            return now[0]

        monkeypatch.setattr("time.perf_counter", lambda now=now: now[0])
        pairs = interleave(
            timed, timed, seed=0, budget_s=1e9, max_pairs=12, warmup_s=warmup_s
        )  # fmt: skip
        assert min(pairs.baseline_s + pairs.technique_s) == 2 * dropped + 1
        assert len(pairs.baseline_s) == 12


def test_the_order_within_a_pair_is_random() -> None:
    calls: list[str] = []

    def timed(name: str) -> float:
        calls.append(name)
        return 1.0

    interleave(lambda: timed("a"), lambda: timed("b"), seed=0, budget_s=1)
    firsts = calls[6::2]
    assert 20 < firsts.count("a") < 60


@pytest.mark.parametrize("bad", [(), (0.0,), (float("nan"),)])
def test_times_that_are_none_are_refused(bad: tuple[float, ...]) -> None:
    with pytest.raises(CompressionError, match="at least one pair"):
        speed_up(Pairs(bad, bad))
