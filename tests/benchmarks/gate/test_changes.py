"""Two saved runs: what became worse, better, new or not comparable, by the gate's rules."""

import copy
from pathlib import Path
from typing import Any

import pytest

from benchmarks.gate.changes import Changes, changes
from benchmarks.gate.history import read_history
from tests.support.gated import accuracy_of
from tests.support.made_up import default_run
from tests.support.saved import node_id, save

Facts = dict[str, Any]


def of(technique: str, metric: str, batch: int | None = None) -> str:
    """Return the node id of a benchmark of default_run()."""
    fact = next(
        f
        for f in default_run()
        if (f["technique"], f["metric"], f.get("batch_size")) == (technique, metric, batch)
    )
    return node_id(fact)


SIZE = of("student", "size")
LATENCY = of("student", "latency", 1)


@pytest.fixture
def compare(tmp_path: Path) -> Any:
    """Return what compares two runs of changed facts, by node id."""

    def compare(old: dict[str, Facts], new: dict[str, Facts], **suite: Any) -> Changes:
        facts = {node_id(fact): fact for fact in default_run()}
        before, after = (
            [{**f, **side.get(n, {})} for n, f in copy.deepcopy(facts).items()]
            for side in (old, new)
        )
        then = read_history(save(tmp_path / "then.json", before))
        now = read_history(save(tmp_path / "now.json", after, suite=suite))
        found = {name: entry["extra_info"] for name, entry in now.entries.items()}
        return changes(found, now.suite, then)

    return compare


def speed_up(value: float) -> Facts:
    return {"speed_up": value, "speed_up_low": 0.98 * value, "speed_up_high": 1.02 * value}


def test_a_run_against_itself_changed_nothing(compare: Any) -> None:
    found = compare({}, {})
    assert (found.regressions, found.unusable, found.better, found.advice) == ([], [], [], [])
    assert found.compared == len(default_run())


def test_worse_one_way_is_better_the_other_way(compare: Any) -> None:
    larger, slower = {"stored_bytes": 6_000_000}, speed_up(1.5)
    there = compare({}, {SIZE: larger, LATENCY: slower})
    back = compare({SIZE: larger, LATENCY: slower}, {})
    assert [line.partition(": ")[0] for line in there.regressions] == [SIZE, LATENCY]
    assert there.better == []
    assert back.better == [
        f"{SIZE}: size 6,000,000 -> 5,442,109 bytes",
        f"{LATENCY}: speed-up 1.50x -> 6.00..6.30x",
    ]
    assert back.regressions == []


def test_accuracy_is_compared_image_by_image(compare: Any) -> None:
    name = of("student", "accuracy")
    before, after = accuracy_of(900), accuracy_of(880)
    found = compare({name: before}, {name: after})
    assert found.regressions[0].startswith(f"{name}: accuracy 90.00% -> 88.00% (20 images lost")
    assert compare({name: after}, {name: before}).better == [f"{name}: accuracy 88.00% -> 90.00%"]


def test_a_change_within_the_noise_is_none(compare: Any) -> None:
    found = compare({LATENCY: speed_up(6.1)}, {LATENCY: speed_up(5.8)})
    assert (found.regressions, found.better) == ([], [])


def test_times_of_another_or_a_busy_machine_are_advice(compare: Any) -> None:
    slow = {LATENCY: speed_up(1.5)}
    other = compare({}, slow, num_threads=64)
    assert other.regressions == []
    assert other.advice[0] == "num_threads is 64, the history's 2: times are advisory"
    assert other.advice[1].startswith(f"{LATENCY}: speed-up 6.12x -> 1.47..1.53x")
    busy = compare({}, {LATENCY: {**slow[LATENCY], "noisy": True}})
    assert busy.regressions == []
    assert len(busy.advice) == 1


def test_other_data_is_compared_with_nothing(compare: Any) -> None:
    found = compare({}, {SIZE: {"stored_bytes": 9}}, dataset_fingerprint="other")
    assert found.unusable == [
        "dataset_fingerprint is 'other', the history's 'd': nothing can be compared"
    ]
    assert (found.compared, found.regressions) == (0, [])


def test_what_only_one_run_has_is_named(tmp_path: Path) -> None:
    facts = default_run()
    then = read_history(save(tmp_path / "then.json", facts[1:]))
    now = {node_id(fact): fact for fact in facts[:-1]}
    found = changes(now, then.suite, then)
    assert found.advice == [f"{node_id(facts[0])}: new", f"{node_id(facts[-1])}: did not run"]
