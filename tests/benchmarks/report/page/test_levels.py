"""Changes of level on recorded noise: a step of 3% is found, and one commit is no change.

Noise is that of control rows, the baseline against itself, whose speed-up is 1: those of the saved
references, and tests/support/recorded_noise.json, 22 runs of one commit of a network of 0.1 ms on two
cores that twelve to twenty other processes shared.
"""

import json
import math
from collections.abc import Iterator
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.report.page.levels import (
    FEWEST_RUNS,
    LEAST_STEP,
    WIDTH,
    Interval,
    exact_changes,
    noisy_changes,
)
from benchmarks.timing.speed_up import Pairs, speed_up
from tests.support.places import ROOT

pytest.importorskip("ruptures", reason="ruptures is not installed (pip install -e '.[report]')")

QUIET = 0.01
"""The standard error of a quiet control: its 95% interval reaches 2% to both sides."""
BEFORE = 20
"""Runs before the step."""


def references() -> Iterator[Interval]:
    for path in sorted((ROOT / "benchmarks/references").glob("*.json")):
        for entry in json.loads(path.read_text())["benchmarks"]:
            fact = entry["extra_info"]
            if fact["metric"] == "latency" and fact["technique"] == "baseline":
                found = tuple(fact[f"speed_up{end}"] for end in ("", "_low", "_high"))
                if found[1] < found[2]:  # in some races the baseline is not timed twice
                    yield found


def busy() -> Iterator[Interval]:
    recorded = json.loads((ROOT / "tests/support/recorded_noise.json").read_text())
    for run in recorded["rows"]["baseline"]:
        times = np.delete(np.array([run["baseline"], run["technique"]]), run["preempted"], axis=1)
        found = speed_up(Pairs(*map(tuple, times)))
        yield found.value, found.low, found.high


@cache
def controls(name: str) -> list[Interval]:
    """Return the control rows of one kind: 'references', 'quiet' or 'busy'."""
    found = [*(busy() if name == "busy" else references())]
    if name == "quiet":
        return [c for c in found if math.log(c[2] / c[1]) / WIDTH < QUIET]
    return found


def drawn(name: str, count: int, seed: int) -> list[Interval]:
    noise = controls(name)
    return [noise[i] for i in np.random.default_rng(seed).integers(len(noise), size=count)]


def stepped(runs: list[Interval], factor: float) -> list[Interval]:
    return [*runs[:BEFORE], *(scaled(run, factor) for run in runs[BEFORE:])]


def scaled(run: Interval, factor: float) -> Interval:
    value, low, high = run
    return value * factor, low * factor, high * factor


@pytest.mark.parametrize(("noise", "share"), [("quiet", 0.9), ("references", 0.75), ("busy", 0.4)])
def test_a_step_of_3_percent_is_found_within_3_runs_as_often_as_the_noise_allows(
    noise: str, share: float
) -> None:
    found = [
        any(abs(start - BEFORE) <= 1 for start in noisy_changes(stepped(runs, factor)))
        for seed in range(100)
        for runs in [drawn(noise, BEFORE + 3, seed)]
        for factor in (1.03, 1 / 1.03)
    ]
    assert len(controls(noise)) >= 12
    assert np.mean(found) >= share


@pytest.mark.parametrize("noise", ["quiet", "references", "busy"])
def test_100_runs_of_one_commit_give_less_than_one_false_alarm(noise: str) -> None:
    alarms = 0
    for seed in range(20):
        runs = drawn(noise, 100, seed)
        known: list[int] = []
        for count in range(1, 101):  # as after each run of CI
            for start in noisy_changes(runs[:count]):
                if all(abs(start - other) > 3 for other in known):
                    known.append(start)
        alarms += len(known)
    assert alarms / 20 < 1


@pytest.mark.parametrize("noise", ["quiet", "references", "busy"])
def test_the_whole_history_of_one_commit_has_hardly_a_change(noise: str) -> None:
    assert sum(len(noisy_changes(drawn(noise, 100, seed))) for seed in range(100)) <= 5


def test_both_ends_of_a_detour_are_found() -> None:
    runs = drawn("quiet", 60, 1)
    there = [scaled(run, 1.2) for run in runs[20:40]]
    assert noisy_changes([*runs[:20], *there, *runs[40:]]) == [20, 40]


def test_a_run_whose_interval_is_wide_weighs_little() -> None:
    quiet = [(1.0, 0.99, 1.01)] * 20
    assert noisy_changes([*quiet, (0.85, 0.6, 1.2), *quiet]) == []
    assert noisy_changes([*quiet, (0.85, 0.84, 0.86), *quiet]) == [20, 21]


def test_few_runs_and_small_steps_are_no_change() -> None:
    exact = [(1.0, 0.9999, 1.0001)] * 10
    far = [(2.0, 1.99, 2.01)] * 10
    assert noisy_changes([*exact[:2], *far[: FEWEST_RUNS - 3]]) == []
    near = 1 + 0.9 * LEAST_STEP
    assert noisy_changes([*exact, *[(near, near - 1e-4, near + 1e-4)] * 10]) == []
    assert noisy_changes([*exact, *far]) == [10]


@given(st.lists(st.integers(0, 3), max_size=30))
def test_exact_values_change_where_they_differ(values: list[int]) -> None:
    starts = [0, *exact_changes(values), len(values)]
    for first, beyond in pairwise(starts):
        assert len(set(values[first:beyond])) <= 1
    assert all(values[i] != values[i - 1] for i in starts[1:-1])
