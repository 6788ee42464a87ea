"""The gate's rule for speed on recorded noise: each run of one commit against each other one.

tests/support/recorded_noise.json holds the rounds of 24 runs of a network of 0.1 ms, one thread, on
two cores that twelve to twenty other processes shared: a prediction in float32 and its INT8 against
the baseline.
"""

import json
from collections.abc import Iterator
from functools import cache
from itertools import permutations
from typing import Any

import numpy as np
import pytest

from benchmarks.gate.rules import control_is_off, noise, speed_up_regression
from benchmarks.timing.speed_up import MIN_PAIRS, Pairs, latency_facts
from tests.support.places import ROOT

RECORDED = json.loads((ROOT / "tests" / "support" / "recorded_noise.json").read_text())
ROWS = list(RECORDED["rows"])
MOST_FALSE = 0.01
LEAST_FOUND = 0.9
"""Of regressions to half the speed: of 80 such short rounds, recorded before there were more of them,
some leave an interval so wide that it proves nothing."""


def rounds(run: dict[str, Any], *, counted: bool, slower: float = 1.0) -> Pairs:
    """Return the pairs of a recorded run as interleave would: without the preempted ones."""
    times = np.array([run["baseline"], run["technique"]]) * RECORDED["unit_s"]
    kept = np.delete(times, run["preempted"], axis=1) if counted else times
    noisy = counted and kept.shape[1] < MIN_PAIRS
    baseline, technique = times if noisy else kept
    return Pairs(
        tuple(baseline), tuple(technique * slower), preempted=len(run["preempted"]), noisy=noisy
    )


@cache
def runs(row: str, *, counted: bool = True, slower: float = 1.0) -> list[dict[str, Any]]:
    """Return the facts of every recorded run."""
    found = [rounds(r, counted=counted, slower=slower) for r in RECORDED["rows"][row]]
    technique = {"technique": row, "num_threads": 1}
    return [{**latency_facts(pairs), **technique} for pairs in found]


def verdicts(thens: list[dict[str, Any]], nows: list[dict[str, Any]]) -> Iterator[bool]:
    """Tell of each run against each other one whether it is red."""
    for then, now in permutations(range(len(thens)), 2):
        sides = (thens[then], nows[now])
        yield not any(map(noise, sides)) and bool(speed_up_regression(*reversed(sides)))


@pytest.mark.parametrize("row", ROWS)
def test_a_run_of_the_same_commit_is_not_red(row: str) -> None:
    assert np.mean([*verdicts(runs(row), runs(row))]) < MOST_FALSE


@pytest.mark.parametrize("row", ROWS)
def test_half_the_speed_is_red(row: str) -> None:
    assert np.mean([*verdicts(runs(row), runs(row, slower=2.0))]) > LEAST_FOUND


def test_the_rounds_that_were_dropped_are_what_moved_the_speed() -> None:
    means = [
        np.mean(np.array(r["baseline"])[r["preempted"]]) / np.median(r["baseline"])
        for r in RECORDED["rows"]["static-int8"]
    ]
    assert min(means) > 2, "a preempted round takes a multiple of what the work takes"


def test_the_control_is_on() -> None:
    assert not any(control_is_off(facts) for facts in runs("baseline"))
