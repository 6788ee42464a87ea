"""The history: one per machine, its steps with their first commit, small for many runs."""

import re
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from benchmarks.report.page.history import history_section, packed
from benchmarks.report.page.levels import FEWEST_RUNS, LEAST_STEP
from benchmarks.report.page.page import page
from benchmarks.report.page.runs import Run, Setting, settings
from benchmarks.report.page.series import series_of
from tests.support.made_up import default_run
from tests.support.saved import SUITE, node_id

MOST_BYTES = 2 * 2**20
RUNS = 30
STEP = 20


def changed(fact: dict[str, Any], i: int, *, step: int) -> dict[str, Any]:
    """Return a fact of run `i`: from `step` on the student is larger, worse and slower."""
    noise = 1 + 0.004 * ((i * 7919 + len(fact["technique"]) * 31) % 7 - 3) / 3
    found = dict(fact)
    later = i >= step and fact["technique"] == "student"
    if fact["metric"] == "latency":
        factor = noise * (0.95 if later else 1)
        found |= {
            f"speed_up{end}": factor * fact[f"speed_up{end}"] for end in ("", "_low", "_high")
        }
    elif later and fact["metric"] == "size":
        found["stored_bytes"] += 7
    elif later and fact["metric"] == "accuracy":
        found |= {
            "correct": fact["correct"] + 25,
            "accuracy": (fact["correct"] + 25) / fact["total"],
        }
    return found


def runs_of(count: int, device: str = "cpu", *, step: int = STEP, **suite: Any) -> list[Run]:
    facts = default_run(device)
    machine = {"cpu": {"brand_raw": "AMD EPYC"}, "suite": {**SUITE, **suite}}
    return [
        Run(
            Path(f"{i}.json"),
            (datetime(2026, 1, 1) + timedelta(days=i)).isoformat(),
            machine,
            {"id": f"{i:07x}0000"},
            {node_id(f): changed(f, i, step=step) for f in facts},
        )
        for i in range(count)
    ]


@pytest.fixture(scope="module")
def setting() -> Setting:
    return settings(runs_of(RUNS))[0]


def lines(section: str) -> list[list[str]]:
    """Return the texts of the first table's lines."""
    body = section.partition("<tbody>")[2].partition("</tbody>")[0]
    return [
        [re.sub(r"<[^>]*>", "", cell) for cell in re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", line)]
        for line in body.split("</tr>")[:-1]
    ]


def test_exact_steps_are_named_with_the_first_run_of_the_new_level(setting: Setting) -> None:
    found = [line for line in lines(history_section(setting)) if "speed-up" not in line[1]]
    first = ["2026-01-21", "0000014"]
    assert found == [
        ["student", "file, MiB", "5.190", "5.190", "+7 bytes", "worse", *first],
        ["student", "accuracy, %", "84.74", "84.99", "+0.25 points", "better", *first],
    ]  # fmt: skip


def test_a_slower_technique_is_named_and_the_others_are_not(setting: Setting) -> None:
    pytest.importorskip("ruptures", reason="ruptures is not installed")
    found = [line for line in lines(history_section(setting)) if "speed-up" in line[1]]
    assert [(line[0], line[1], line[5], line[7]) for line in found] == [
        ("student", f"speed-up, batch {batch}", "worse", "0000014") for batch in (1, 64)
    ]


def test_each_judged_row_says_the_smallest_step_that_it_finds(setting: Setting) -> None:
    pytest.importorskip("ruptures", reason="ruptures is not installed")
    _, found = series_of(setting)
    finds = {(one.technique, one.measure.name): one.finds for one in found if one.finds}
    judged = [
        one for one in found if "speed-up" in one.measure.name and one.technique != "baseline"
    ]
    assert len(finds) == len(judged) > 0
    text = history_section(setting)
    for share in finds.values():
        assert f"<small>finds {share:.1%}</small>" in text
        assert LEAST_STEP < share < 0.1
    assert text.count("<small>") == text.count(", finds ") == len(finds)
    assert text.count("Finds 4%: ") == 1


def test_a_row_finds_less_the_more_speed_ups_one_run_measures() -> None:
    pytest.importorskip("ruptures", reason="ruptures is not installed")
    runs = runs_of(RUNS)
    both = [
        replace(run, facts={**run.facts, **other.facts})
        for run, other in zip(runs, runs_of(RUNS, "cuda"), strict=True)
    ]
    alone, beside = (
        {one.technique: one.finds for one in series_of(settings(each)[0])[1] if one.finds}
        for each in (runs, both)
    )
    assert settings(both)[0].device == settings(runs)[0].device
    assert alone.keys() == beside.keys()
    assert all(beside[name] > alone[name] for name in alone)


def test_fewer_than_6_runs_are_not_judged() -> None:
    assert "inds " not in history_section(settings(runs_of(FEWEST_RUNS - 1))[0])


def test_without_ruptures_the_page_says_that_it_does_not_judge(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.report.page.series.can_judge", lambda: False)
    monkeypatch.setattr("benchmarks.report.page.history.can_judge", lambda: False)
    text = history_section(setting)
    assert "Speed-ups are not judged" in text
    assert "inds " not in text
    assert len(lines(text)) == 2


def test_each_machine_has_a_history_of_its_own() -> None:
    here, there = runs_of(RUNS), runs_of(RUNS, num_threads=64, step=5)
    mixed = [run for pair in zip(here, there, strict=True) for run in pair]
    for setting, commit in zip(settings(mixed), ("0000014", "0000005"), strict=True):
        found = lines(history_section(setting))
        assert {line[7] for line in found} == {commit}


def test_one_run_has_no_history() -> None:
    assert history_section(settings(runs_of(1))[0]) == ""


def test_the_gate_s_tolerance_is_drawn_under_each_level(setting: Setting) -> None:
    _, found = series_of(setting)
    one = next(s for s in found if s.technique == "float16" and s.measure.name == "accuracy, %")
    assert one.limits == pytest.approx([94.24 - 1.96 * 100 * (2 * 0.9424 * 0.0576 / 10_000) ** 0.5])
    speed = next(s for s in found if s.technique == "baseline" and "batch 1" in s.measure.name)
    assert speed.limits == pytest.approx([0.75 * speed.levels[0]])
    student = next(s for s in found if s.technique == "student" and "file" in s.measure.name)
    assert student.limits == student.levels, "no byte more"
    assert len(student.limits) == 2


def test_a_busy_run_is_no_evidence() -> None:
    runs = runs_of(RUNS, step=RUNS)
    facts = {
        name: fact
        | ({"noisy": True, "speed_up": 0.1, "speed_up_low": 0.09} if "latency" in name else {})
        for name, fact in runs[9].facts.items()
    }
    runs[9] = Run(runs[9].path, runs[9].date, runs[9].machine, runs[9].commit, facts)
    _, found = series_of(settings(runs)[0])
    assert all(9 not in one.at for one in found if "speed-up" in one.measure.name)
    assert [one.starts for one in found if one.starts] == []
    speed = next(one for one in found if "speed-up" in one.measure.name)
    assert "*1 " in packed(speed, RUNS), "a gap"


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_500_runs_stay_below_2_mib(device: str) -> None:
    text = page(runs_of(500, device, step=499))
    assert len(text.encode()) < MOST_BYTES
    if device == "cpu":
        assert "|2027-05-15 " in text, "the newest run is among the labels"
