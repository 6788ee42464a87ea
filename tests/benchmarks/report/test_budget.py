"""Which row is the best within a budget, and what the others miss."""

from typing import Any

import pytest

from benchmarks.report.budget import Choice, choose, parse_budget
from benchmarks.report.reference import read_reference
from compression.errors import CompressionError
from tests.support.made_up import default_run
from tests.support.places import REFERENCES


def chosen(budget: str, facts: list[dict[str, Any]] | None = None) -> Choice:
    return choose(default_run() if facts is None else facts, parse_budget(budget))


def names(choice: Choice) -> list[str]:
    return [row.name for row in choice.fitting]


def point(name: str, correct: int, ms: float, size: int, **other: Any) -> list[dict[str, Any]]:
    """Return the facts of a row of a run on a thousand images."""
    common = {"technique": name, "device": "cpu", "simulated": False, **other}
    accuracy = {"metric": "accuracy", "accuracy": correct / 1000, "drop": 0.9 - correct / 1000}
    latency = {"metric": "latency", "timing": "wall", "batch_size": 1, "latency_ms": ms}
    return [common | accuracy | {"stored_bytes": size}, common | latency]


def test_a_budget_is_read_in_its_units() -> None:
    limits = parse_budget("file=1.5KiB latency=2s,latency@64=300us  drop=1% accuracy=90pt")
    assert [(limit.part, limit.value, limit.batch) for limit in limits] == [
        ("file", 1536, None),
        ("latency", 2000, None),
        ("latency", pytest.approx(0.3), 64),
        ("drop", 0.01, None),
        ("accuracy", pytest.approx(0.9), None),
    ]
    (of_bytes,) = parse_budget("file=300B")
    assert (of_bytes,) == tuple(
        limit.__class__("file", 300, "file=300B") for limit in parse_budget("file=300bytes")
    )


@pytest.mark.parametrize(
    ("budget", "said"),
    [
        ("", "found ''; write it like"),
        ("size=3MiB", "expected file=, latency=, .* found 'size=3MiB'"),
        (
            "file=3",
            "file: expected a number and one of MiB, .*, found '3'; write it like file=3MiB",
        ),
        ("file=3MB", "found '3MB'"),
        ("file=MiB", "found 'MiB'; write it like file=3MiB"),
        ("latency=-1ms", "found '-1ms'"),
        ("drop=nanpt", "found 'nanpt'"),
        ("drop@64=1pt", "found 'drop@64=1pt'"),
        ("latency@0=1ms", "found 'latency@0=1ms'"),
        ("drop=1pt file=1B drop=2pt", "found drop=1pt and drop=2pt; drop one"),
    ],
)
def test_a_budget_that_cannot_be_read_is_refused(budget: str, said: str) -> None:
    with pytest.raises(CompressionError, match=said):
        parse_budget(budget)


def test_the_best_loses_least_and_every_row_is_accounted_for() -> None:
    choice = chosen("file=20MiB drop=3pt")
    first = ["l1-unstructured-60-tuned", "static-int8", "l1-global-60"]
    assert names(choice)[:3] == first
    out = {name for found in choice.out.values() for name in found}
    everything = {fact["technique"] for fact in default_run()}
    assert out | set(names(choice)) == everything
    assert out.isdisjoint(names(choice))
    assert choice.out["file above 20MiB"][:2] == ("baseline", "ln-structured-30")


def test_of_rows_with_as_many_images_correct_the_faster_then_the_smaller_counts() -> None:
    facts = [
        *point("slow", 890, 3.0, 10),
        *point("large", 890, 1.0, 30),
        *point("small", 890, 1.0, 20),
        *point("worse", 889, 0.1, 1),
        *point("untimed", 890, 1.0, 5)[:1],
    ]
    assert names(chosen("drop=2pt", facts)) == ["small", "large", "slow", "untimed", "worse"]
    assert names(chosen("drop=1pt", facts)) == ["small", "large", "slow", "untimed"], "0.9 - 0.89"
    assert names(chosen("accuracy=89%", facts)) == ["small", "large", "slow", "untimed"]


def test_a_latency_is_that_of_the_smallest_batch_unless_one_is_named() -> None:
    assert names(chosen("latency=5ms")) == ["channels-50-int8", "distilled", "student",
                                            "distilled-paper-t0.01"]  # fmt: skip
    assert names(chosen("latency@64=200ms")) == ["distilled", "student", "distilled-paper-t0.01"]
    assert names(chosen("latency=5ms latency@64=200ms drop=9pt")) == ["distilled"]


def test_a_small_file_is_told_in_kibibytes() -> None:
    facts = [*point("tiny", 890, 3.0, 9_000), *point("small", 880, 3.0, 900_000)]
    assert chosen("drop=9pt", facts).lines() == [
        "best: tiny: 8.8 KiB, drop +1.00 pt, 3.00 ms at 1",
        "runner-up: small: 0.86 MiB, drop +2.00 pt, 3.00 ms at 1",
    ]


def test_times_of_a_busy_machine_are_told_as_such() -> None:
    facts = [*point("busy", 890, 3.0, 900_000, noisy=True), *point("calm", 880, 3.0, 900_000)]
    best, second = chosen("latency=9ms", facts).lines()
    assert best.endswith("3.00 ms at 1, of a busy machine")
    assert second.endswith("3.00 ms at 1")


def test_a_row_without_a_latency_to_claim_keeps_to_no_limit_of_one() -> None:
    facts = [*point("timed", 890, 3.0, 10), *point("sized", 895, 1.0, 9, size_only=True)[:1]]
    facts += point("acted", 899, 1.0, 9, simulated=True)[:1]
    choice = chosen("latency=9ms", facts)
    assert names(choice) == ["timed"]
    assert choice.out == {"no latency, size only": ("sized",), "no latency, simulated": ("acted",)}
    assert names(chosen("drop=9pt", facts)) == ["acted", "sized", "timed"]


def test_what_a_run_did_not_measure_is_not_judged_and_said() -> None:
    sizes = [fact for fact in default_run() if fact["metric"] == "size"]
    choice = chosen("file=6MiB latency=2ms drop=1pt", sizes)
    assert choice.unjudged == ("latency=2ms", "drop=1pt")
    assert names(choice) == ["student", "distilled", "distilled-paper-t0.01"], "in their order"
    assert choice.lines()[-1] == "not judged, as nothing was measured: drop=1pt"
    some = [f for f in default_run() if f["metric"] != "accuracy" or f["technique"] == "student"]
    assert "distilled" in chosen("drop=20pt", some).out["drop not measured"]
    costs = [fact for fact in default_run() if fact["metric"] == "cost"]
    assert chosen("file=6MiB", costs).lines()[0] == "best: nothing of it was measured"


@pytest.mark.parametrize("budget", ["file=3MiB latency=2ms drop=1pt accuracy=99%", "drop=0pt"])
def test_a_choice_is_few_lines_of_whole_names(budget: str) -> None:
    facts = list(read_reference(REFERENCES / "digits-cpu.json").facts)
    lines = choose(facts, parse_budget(budget)).lines()
    assert lines[0].startswith("best: ")
    assert lines[1].startswith("runner-up: ")
    assert len(lines) <= 9
    assert max(map(len, lines)) <= 100
    known = {fact["technique"] for fact in facts}
    listed = [line.partition("): ")[2].removesuffix(", ...") for line in lines[2:]]
    assert {name for names in listed for name in names.split(", ")} <= known


def test_the_devices_of_a_run_are_told_apart() -> None:
    both = [*default_run("cuda"), *default_run("cpu")]
    choice = chosen("latency=2ms drop=0pt", both)
    assert choice.fitting[0].name == "cuda baseline"
    assert "cpu baseline" in choice.out["latency above 2ms"]
    assert "1.42 ms at 1, 4.31 ms at 128" in choice.lines()[0]
