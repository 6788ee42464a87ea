"""Changes of level on recorded noise: a step of 3% is found, and one commit is no change.

Noise is that of control rows, the baseline against itself, whose speed-up is 1: of the references
until 2026-11-26 (tests/support/recorded_controls.json), and tests/support/recorded_noise.json, 22 runs
of one commit of a network of 0.1 ms on two cores that twelve to twenty other processes shared.
tests/support/repeated_runs.json holds the speed-ups of 20 runs of one commit, `--quick`, in order:
of two threads, by which the rule was chosen, and of one, made later.
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
    SOON,
    WIDTH,
    Interval,
    exact_changes,
    noisy_changes,
    smallest_step,
)
from benchmarks.timing.speed_up import Pairs, speed_up
from tests.support.places import ROOT

pytest.importorskip("ruptures", reason="ruptures is not installed (pip install -e '.[report]')")

QUIET = 0.01
"""The standard error of a quiet control: its 95% interval reaches 2% to both sides."""
BEFORE = 20
"""Runs before the step."""
PAGE = 32
"""Speed-ups on a page of a full run; of a quick one they are 14."""
NOISES = ("quiet", "references", "busy", "repeated")


def references() -> Iterator[Interval]:
    recorded = json.loads((ROOT / "tests/support/recorded_controls.json").read_text())
    for row in recorded["rows"]:
        value, low, high = row["speed_up"]
        yield value, low, high


def busy() -> Iterator[Interval]:
    recorded = json.loads((ROOT / "tests/support/recorded_noise.json").read_text())
    for run in recorded["rows"]["baseline"]:
        times = np.delete(np.array([run["baseline"], run["technique"]]), run["preempted"], axis=1)
        found = speed_up(Pairs(*map(tuple, times)))
        yield found.value, found.low, found.high


@cache
def repeated(threads: str = "2 threads") -> dict[str, list[Interval]]:
    """Return the speed-ups of 20 runs of one commit by row."""
    rows = json.loads((ROOT / "tests/support/repeated_runs.json").read_text())[threads]
    return {name: [tuple(run) for run in runs] for name, runs in rows.items()}


@cache
def controls(name: str) -> list[Interval]:
    """Return the control rows of one kind: 'references', 'quiet' or 'busy'."""
    found = [*(busy() if name == "busy" else references())]
    if name == "quiet":
        return [c for c in found if math.log(c[2] / c[1]) / WIDTH < QUIET]
    return found


def drawn(name: str, count: int, seed: int) -> list[Interval]:
    """Return runs of a row, drawn from what was measured of it; of 'repeated' one row after another."""
    rows = list(repeated().values())
    noise = rows[seed % len(rows)] if name == "repeated" else controls(name)
    return [noise[i] for i in np.random.default_rng(seed).integers(len(noise), size=count)]


def stepped(runs: list[Interval], factor: float) -> list[Interval]:
    return [*runs[:BEFORE], *(scaled(run, factor) for run in runs[BEFORE:])]


def scaled(run: Interval, factor: float) -> Interval:
    value, low, high = run
    return value * factor, low * factor, high * factor


@pytest.mark.parametrize(
    ("noise", "share", "series"),
    [("quiet", 0.9, 1), ("references", 0.75, 1), ("busy", 0.4, 1), ("quiet", 0.9, PAGE)],
)
def test_a_step_of_3_percent_is_found_within_3_runs_as_often_as_the_noise_allows(
    noise: str, share: float, series: int
) -> None:
    found = [
        any(
            abs(start - BEFORE) <= 1
            for start in noisy_changes(stepped(runs, factor), series=series)
        )
        for seed in range(100)
        for runs in [drawn(noise, BEFORE + 3, seed)]
        for factor in (1.03, 1 / 1.03)
    ]
    assert len(controls(noise)) >= 12
    assert np.mean(found) >= share


def alarms(runs: list[Interval], series: int = 1) -> int:
    """Return how many changes are told, judged after each run as in CI; those of one place once."""
    known: list[int] = []
    for count in range(1, len(runs) + 1):
        for start in noisy_changes(runs[:count], series=series):
            if all(abs(start - other) > 3 for other in known):
                known.append(start)
    return len(known)


@pytest.mark.parametrize("noise", NOISES)
def test_100_runs_of_one_commit_give_less_than_one_false_alarm(noise: str) -> None:
    assert sum(alarms(drawn(noise, 100, seed)) for seed in range(20)) / 20 < 1


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("series", [14, PAGE])
def test_100_runs_of_one_commit_give_at_most_one_false_alarm_on_a_whole_page(
    noise: str, series: int
) -> None:
    rows = range(48)
    found = sum(alarms(drawn(noise, 100, 100 + seed), series) for seed in rows)
    assert series * found / len(rows) <= 1


@pytest.mark.parametrize("threads", ["2 threads", "1 thread"])
def test_20_real_runs_of_one_commit_give_no_alarm_on_their_page(threads: str) -> None:
    rows = [runs for name, runs in repeated(threads).items() if "baseline" not in name]
    assert [len(runs) for runs in rows] == [20] * 14
    assert [alarms(runs, len(rows)) for runs in rows] == [0] * len(rows)
    shuffled = [np.random.default_rng(seed).permutation(20) for seed in range(20)]
    found = [alarms([runs[i] for i in order], len(rows)) for order in shuffled for runs in rows]
    assert sum(found) / len(shuffled) <= 20 / 100


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("series", [14, PAGE])
def test_the_smallest_step_that_a_row_s_noise_allows_is_found_within_3_runs(
    noise: str, series: int
) -> None:
    found: dict[float, list[bool]] = {0.5: [], 1.0: []}
    for seed in range(80):
        runs = drawn(noise, BEFORE + SOON, seed)
        known = noisy_changes(runs[:BEFORE], series=series)
        step = smallest_step(runs[:BEFORE], known, series=series)
        for share, hits in found.items():
            later = stepped(runs, (1 + step) ** (share if seed % 4 < 2 else -share))
            counts = range(BEFORE + 1, BEFORE + SOON + 1)
            starts = [noisy_changes(later[:count], series=series) for count in counts]
            hits.append(any(start > BEFORE - SOON for each in starts for start in each))
    assert np.mean(found[1.0]) >= 0.8
    assert np.mean(found[0.5]) <= 0.25, "the step is not much larger than it must be"


def test_the_smallest_step_grows_with_noise_and_page_and_shrinks_with_more_runs() -> None:
    quiet, busy = (drawn(noise, 60, 0) for noise in ("quiet", "busy"))
    assert LEAST_STEP < smallest_step(quiet, []) < 0.03 < smallest_step(busy, [])
    assert smallest_step(busy, []) < smallest_step(busy, [], series=PAGE)
    assert smallest_step(busy[:8], []) > smallest_step(busy, [])
    assert smallest_step(busy, [55]) > smallest_step(busy, []), "the newest level has 5 runs"
    both = stepped(busy, 2.0)
    assert smallest_step(both, [BEFORE]) < 0.1 < smallest_step(both, [])


@pytest.mark.parametrize("noise", NOISES)
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
