"""A saved run beside this one: a line per row of both."""

from typing import Any

from benchmarks.report.changes import changes
from benchmarks.report.reference import read_reference
from benchmarks.report.rows import rows
from tests.support.made_up import default_run
from tests.support.places import REFERENCES


def cells(text: str, name: str) -> list[str]:
    """Return the words of the only line of a technique."""
    (line,) = [line for line in text.splitlines() if line.startswith(f"{name} ")]
    return line.split()[1:]


def changed(name: str, metric: str, **facts: Any) -> list[dict[str, Any]]:
    """Return a run of which one row has another number."""
    return [
        fact | (facts if (fact["technique"], fact["metric"]) == (name, metric) else {})
        for fact in default_run()
    ]


def test_each_number_stands_beside_what_it_was() -> None:
    then = rows(default_run())
    smaller = changed("student", "size", stored_bytes=5_000_000)
    assert cells(changes(then, rows(smaller)), "student") == [
        *("5,442,109", "5,000,000", "84.74", "84.74"),
        *("6.12", "6.12", "6.12", "6.12"),
    ]
    worse = changed("student", "accuracy", accuracy=0.8)
    assert cells(changes(then, rows(worse)), "student")[2:4] == ["84.74", "80.00"]
    slower = changed("student", "latency", speed_up=2.0)
    assert cells(changes(rows(slower), then), "student")[4:6] == ["2.00", "6.12"]


def test_what_only_one_run_knows_stands_beside_a_dash() -> None:
    run = default_run()
    untimed = [fact for fact in run if fact["metric"] != "latency"]
    text = changes(rows(untimed), rows(run))
    assert cells(text, "student")[4:] == ["-", "6.12", "-", "6.12"]
    assert cells(text, "float16")[4:] == ["-"] * 4
    assert "x at" not in changes(rows(run), rows(untimed))


def test_rows_that_the_saved_run_lacks_are_named() -> None:
    run = default_run()
    few = [fact for fact in run if fact["technique"] in ("baseline", "student")]
    text = changes(rows(few), rows(run))
    assert len(text.splitlines()) == 5
    assert text.splitlines()[-1].startswith("not in the saved run (17): l1-unstructured-60, ")
    assert changes([], rows(few)) == "not in the saved run (2): baseline, student"
    assert len(changes(rows(run), rows(few)).splitlines()) == 4, "no row of this run, no line"


def test_a_whole_run_fits() -> None:
    found = rows(read_reference(REFERENCES / "digits-cpu.json").facts)
    lines = changes(found, found).splitlines()
    assert len(lines) == len(found) + 2
    assert max(map(len, lines)) <= 100


def test_devices_are_compared_with_their_own() -> None:
    both = rows([*default_run("cuda"), *default_run("cpu")])
    text = changes(rows(default_run("cuda")), both)
    assert "cuda student" in text
    assert "cpu student " not in text.partition("not in the saved run")[0]
