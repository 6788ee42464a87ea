"""A history or a run that cannot be believed is refused with one sentence."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.gated import Suite, accuracy_of, make_suite, verdict


@pytest.fixture
def suite(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Suite:
    return make_suite(pytester, monkeypatch)


HUGE = 10**400
STATS: dict[str, tuple[str, Any, str]] = {
    "nan": ("mean", float("nan"), "has a mean of nan s"),
    "zero": ("mean", 0, "has a mean of 0 s"),
    "other nan": ("min", float("nan"), "has a min of nan s"),
    "text": ("min", "fast", "has a min of 'fast' s"),
    "infinite": ("max", float("inf"), "has a max of inf s"),
    "huge": ("median", HUGE, "has a median of 1000"),
    "negative": ("stddev", -1.0, "has a stddev of -1.0 s"),
    "true": ("iqr", True, "has a iqr of True s"),
    "nested": ("min", [[1.0]], "has a min of [[1.0]] s"),
    "rate": ("ops", None, "has a ops of None"),
    "part of a round": ("rounds", 1.5, "has a rounds of 1.5"),
    "no outliers": ("outliers", 3, "has a outliers of 3"),
}


TEXTS: dict[str, Callable[[str], str]] = {
    "truncated": lambda text: text[:500],
    "a list": lambda _: "[]",
    "deep": lambda _: "[" * 100_000,
}
ENTRIES: dict[str, Callable[[list[Any]], list[Any]]] = {
    "empty": lambda _: [],
    "taken out": lambda entries: [entries[0], *entries[2:]],
    "twice": lambda entries: [*entries, entries[0]],
}
ABSENT = {"absent": "min", "no rounds": "rounds"}


def damage(path: Path, kind: str) -> None:
    """Damage the saved run at `path` in one way."""
    if kind == "missing":
        path.unlink()
        return
    if kind in TEXTS:
        path.write_text(TEXTS[kind](path.read_text()))
        return
    history = json.loads(path.read_text())
    stats = history["benchmarks"][0]["stats"]
    if kind in STATS:
        field, value, _ = STATS[kind]
        stats[field] = value
    elif kind in ABSENT:
        del stats[ABSENT[kind]]
    elif kind == "miscounted":
        history["num_benchmarks"] = "4"
    else:
        history["benchmarks"] = ENTRIES[kind](history["benchmarks"])
    path.write_text(json.dumps(history))


DAMAGE = {
    "truncated": "not a JSON file, or truncated",
    "a list": "expected a run saved by pytest-benchmark",
    "deep": "not a JSON file, or truncated",
    "empty": "at least one benchmark",
    **{kind: said for kind, (_, _, said) in STATS.items()},
    "taken out": "expected the 4 entries of its num_benchmarks, found 3",
    "miscounted": "expected the '4' entries of its num_benchmarks, found 4",
    "absent": "has a min of None s",
    "no rounds": "lacks rounds in its stats",
    "twice": "stands in it twice",
    "missing": "found 'history.json'",
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_history_that_cannot_be_used_is_a_usage_error(suite: Suite, kind: str) -> None:
    damage(suite.pytester.path / "history.json", kind)
    verdict(suite.gate(), 4, "history.json", DAMAGE[kind])


BROKEN = {  # name of the test: facts of the history, and what is said
    "size": [
        ({"stored_bytes": 0}, "a stored_bytes of 0"),
        ({"stored_bytes": HUGE}, "a stored_bytes of 1000"),
        ({"stored_bytes": [1000]}, "a stored_bytes of [1000]"),
        ({"metric": ["size"]}, "measures 'size', the history ['size']"),
        ({"parameters": 3, "nonzeros": 4}, "4 nonzeros of 3 parameters"),
    ],
    "accuracy": [
        ({"correct": 1}, "its record says 900"),
        ({"correct": -1}, "a correct of -1"),
        ({"correct": float("nan")}, "a correct of nan"),
        ({"total": HUGE}, "a total of 1000"),
        ({"accuracy": 0.5}, "an accuracy of 0.5 beside 900 of 1000 correct"),
        ({"correct_images": "\u00e9"}, "a correct_images that cannot be used: damaged record"),
        ({"correct_images": {"a": [{}]}}, "a correct_images that cannot be used: damaged record"),
    ],
    "latency": [
        ({"speed_up": 9.0}, "a speed_up of 9.0 outside its interval of 1.9 to 2.1"),
        ({"speed_up_low": HUGE}, "a speed_up_low of 1000"),
        ({"latency_ms": "fast"}, "a latency_ms of 'fast'"),
        ({"noisy": 1}, "a noisy of 1"),
        ({"preempted": -3}, "a preempted of -3"),
        ({"num_threads": None}, "a num_threads of None"),
    ],
}


@pytest.mark.parametrize("name", BROKEN)
def test_facts_of_the_history_that_contradict_each_other_fail(suite: Suite, name: str) -> None:
    path = suite.pytester.path / "history.json"
    whole = path.read_text()
    for facts, said in BROKEN[name]:
        history = json.loads(whole)
        entry = next(e for e in history["benchmarks"] if e["name"] == f"test_it[{name}]")
        entry["extra_info"] |= facts
        path.write_text(json.dumps(history))
        verdict(suite.gate(), 1, f"FAILED: test_bench.py::test_it[{name}]: ", said)


CONTRADICTORY: dict[
    str, list[tuple[dict[str, Any], str]]
] = {  # each fact is of its type, or it could not be recorded
    "size": [({"parameters": 3, "nonzeros": 4}, "4 nonzeros of 3 parameters")],
    "accuracy": [
        ({"correct": 1}, "a correct_images that cannot be used: 1 images are correct, its record"),
        ({"correct": 1001}, "a correct of 1001"),
    ],
    "latency": [
        ({"speed_up": 9.0}, "a speed_up of 9.0 outside its interval of 1.9 to 2.1"),
        ({"speed_up_low": HUGE}, "a speed_up_low of 1000"),
    ],
}


@pytest.mark.parametrize("name", CONTRADICTORY)
def test_facts_of_this_run_that_contradict_each_other_fail(suite: Suite, name: str) -> None:
    for facts, said in CONTRADICTORY[name]:
        suite.write({name: facts})
        verdict(suite.gate(), 1, f"test_it[{name}]: this run has {said}")


def test_a_damaged_entry_that_this_run_leaves_out_is_refused_too(suite: Suite) -> None:
    path = suite.pytester.path / "history.json"
    path.write_text(path.read_text().replace('"stored_bytes": 1000', '"stored_bytes": 0'))
    said = "test_it[size]: the history has a stored_bytes of 0"
    verdict(suite.gate("-k", "accuracy"), 1, said, "1 of 4 compared")


def test_a_benchmark_without_an_entry_is_named(suite: Suite) -> None:
    path = suite.pytester.path / "history.json"
    history = json.loads(path.read_text())
    del history["num_benchmarks"]  # as it was saved before entries were counted
    del history["benchmarks"][1]
    path.write_text(json.dumps(history))
    said = "advisory: test_bench.py::test_it[accuracy]: not in the history, so nothing gates it"
    verdict(suite.gate(), 0, said, "3 of 3 compared")


def test_a_history_without_the_newer_facts_is_used_as_ever(suite: Suite) -> None:
    path = suite.pytester.path / "history.json"
    history = json.loads(path.read_text())
    del history["num_benchmarks"]
    for entry in history["benchmarks"]:
        for fact in ("correct_images", "accuracy", "num_threads", "noisy", "preempted"):
            entry["extra_info"].pop(fact, None)
    path.write_text(json.dumps(history))
    verdict(suite.gate(), 0, "4 of 4 compared, 0 regressions, 0 not usable")
    suite.write({"accuracy": accuracy_of(800)})
    verdict(suite.gate(), 1, "accuracy 90.00% -> 80.00% (beyond 1.96 standard errors")
