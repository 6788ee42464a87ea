"""The table that a run ends with: one line per technique, of what is known."""

import re

import pytest

from benchmarks.report.brief import brief
from benchmarks.report.reference import read_reference
from benchmarks.report.rows import rows
from tests.support.made_up import default_run
from tests.support.places import REFERENCES


def cells(text: str, name: str) -> list[str]:
    """Return the words of the only line of a technique."""
    (line,) = [line for line in text.splitlines() if line.startswith(f"{name} ")]
    return line.split()[1:]


@pytest.mark.parametrize("name", ["digits-cpu.json", "cifar10-cuda-nvidia-h100.json"])
def test_a_saved_run_is_a_line_a_technique(name: str) -> None:
    found = rows(read_reference(REFERENCES / name).facts)
    lines = brief(found).splitlines()
    assert len(lines) == len(found) + 2
    assert [line.split()[0] for line in lines[2:]] == [row.technique for row in found]
    assert max(map(len, lines)) <= 100
    assert len(lines) <= 36, "40 with a line above and three below"


def test_a_line_says_file_accuracy_drop_speed_and_targets() -> None:
    text = brief(rows(default_run()))
    speeds = ["1.00", "±0.03", "1.00", "±0.03"]
    assert cells(text, "baseline") == ["42.72", "94.24", "+0.00", *speeds, "yes"]
    assert cells(text, "float16")[3:5] == ["simulated", "simulated"]
    assert cells(text, "student")[-1] == "-", "nothing was promised"
    heads = ["technique", "MiB", "acc %", "drop pt", "speed at 1", "speed at 64", "target"]
    assert re.split(r"  +", text.splitlines()[0]) == heads


def test_what_was_promised_and_missed_is_named_once() -> None:
    some = [
        fact | {"target_met": fact["metric"] == "size"}
        for fact in default_run()
        if fact["metric"] != "cost"
    ]
    assert cells(brief(rows(some)), "distilled")[-3:] == ["NO", "drop", "speed"]
    several = brief(rows([fact | {"target_met": False} for fact in default_run()]))
    assert cells(several, "distilled")[-4:] == ["NO", "size", "drop", "+2"]


def test_times_of_a_busy_machine_are_one_sentence() -> None:
    noisy = [fact | {"noisy": fact["technique"] != "baseline"} for fact in default_run()]
    last = brief(rows(noisy)).splitlines()[-1]
    assert last.startswith("times of a busy machine, no evidence (16): l1-unstructured-60, ")
    assert len(last) <= 100
    assert "busy" not in brief(rows(default_run()))


def test_only_what_is_known_is_shown() -> None:
    sizes = [fact for fact in default_run() if fact["metric"] == "size"]
    assert cells(brief(rows(sizes)), "student") == ["5.19", "-", "-", "-"]
    others = [fact | {"metric": "agreement"} for fact in sizes]
    assert brief(rows(others)) == ""


def test_each_of_two_devices_has_its_lines() -> None:
    text = brief(rows([*default_run("cuda"), *default_run("cpu")]))
    cpu, cuda = text.split("\n\n")
    assert cpu.startswith("technique  ")
    assert cuda.startswith("technique (cuda)  ")
    assert "speed at 1  speed at 1024" in cuda.splitlines()[0]
    assert len(cpu.splitlines()) == len(cuda.splitlines())
