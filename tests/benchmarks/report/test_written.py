"""`python -m benchmarks.report` and `pytest --report`: both files, or one error and nothing."""

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from benchmarks.report.__main__ import main
from tests.support.gated import CONFTEST, Suite, make_suite
from tests.support.made_up import default_run
from tests.support.places import ROOT
from tests.support.saved import save, saved

DIGITS = ROOT / "benchmarks/references/digits-cpu.json"


@pytest.fixture(autouse=True)
def no_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_it_writes_two_files_and_says_where(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(DIGITS), "-o", str(tmp_path / "a/b"), "--against", str(DIGITS)]) == 0
    folder = tmp_path / "a/b"
    assert names(folder) == ["report.html", "summary.md"]
    assert capsys.readouterr().out.split() == [str(folder / name) for name in names(folder)]
    said = (folder / "summary.md").read_text()
    assert "Against `digits-cpu.json`: 142 benchmarks compared: 0 worse, 0 better." in said


def test_the_step_s_summary_goes_on_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    step = tmp_path / "step.md"
    step.write_text("before\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(step))
    main([str(DIGITS), "-o", str(tmp_path / "out")])
    assert step.read_text() == "before\n" + (tmp_path / "out/summary.md").read_text()
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path))
    with pytest.raises(SystemExit):
        main([str(DIGITS), "-o", str(tmp_path / "out")])
    assert "GITHUB_STEP_SUMMARY=" in capsys.readouterr().err


def damaged(**changes: Any) -> str:
    """Return a saved run whose first entry has other facts."""
    run = saved(default_run())
    facts = run["benchmarks"][0]["extra_info"]
    facts.update(changes)
    return json.dumps(run)


def without(key: str) -> str:
    run = saved(default_run())
    run["benchmarks"][0]["extra_info"].pop(key)
    return json.dumps(run)


def foreign() -> str:
    run = saved(default_run())
    for entry in run["benchmarks"]:
        entry["extra_info"] = {"weather": "fine"}
    return json.dumps(run)


MISTAKES = {
    "truncated": (DIGITS.read_text()[:5000], "not a JSON file, or truncated"),
    "binary": ("\x00\x01", "not a JSON file"),
    "a list": ("[]", "expected a run saved by pytest-benchmark with at least one benchmark"),
    "empty": (json.dumps({"benchmarks": []}), "with at least one benchmark"),
    "another suite's": (foreign(), "none of its 91 benchmarks records a metric of this suite"),
    "a text for bytes": (damaged(stored_bytes="many"), "has a stored_bytes of"),
    "no number": (damaged(stored_bytes=float("nan")), "has a stored_bytes of"),
    "no metric of ours": (damaged(metric="weather"), "has a metric of"),
    "no technique": (without("technique"), "lacks its technique"),
    "no bytes": (without("stored_bytes"), "lacks its stored_bytes"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_file_that_is_no_run_is_one_error_and_nothing_is_written(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text, said = MISTAKES[name]
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(SystemExit) as ended:
        main([str(DIGITS), str(tmp_path / "run.json"), "-o", str(tmp_path / "out")])
    error = capsys.readouterr().err.splitlines()[-1]
    assert ended.value.code == 2
    assert f"{tmp_path}/run.json: " in error
    assert said in error
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("place", ["missing.json", "folder"])
def test_a_file_that_cannot_be_read_is_named(
    place: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(SystemExit):
        main([str(tmp_path / place), "-o", str(tmp_path / "out")])
    assert f"{tmp_path}/{place}: expected a saved run" in capsys.readouterr().err


def test_a_folder_that_cannot_be_is_named_and_nothing_changes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(SystemExit):
        main([str(DIGITS), "-o", str(tmp_path / "file")])
    assert "a file is in the folder's place" in capsys.readouterr().err
    assert (tmp_path / "file").read_text() == "mine"
    main([str(DIGITS), "-o", str(tmp_path / "out")])
    before = (tmp_path / "out/report.html").stat().st_mtime_ns
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write everywhere
    with pytest.raises(SystemExit):
        main([str(DIGITS), "-o", str(tmp_path / "out")])
    assert "expected a folder to write to, read-only" in capsys.readouterr().err
    assert (tmp_path / "out/report.html").stat().st_mtime_ns == before


def test_a_disk_that_fills_up_leaves_the_old_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    main([str(DIGITS), "-o", str(tmp_path)])
    old = (tmp_path / "report.html").read_bytes()

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(SystemExit):
        main([str(save(tmp_path / "run.json", default_run())), "-o", str(tmp_path)])
    assert "disk full" in capsys.readouterr().err
    assert (tmp_path / "report.html").read_bytes() == old
    assert names(tmp_path) == ["report.html", "run.json", "summary.md"]


@pytest.fixture
def suite(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Suite:
    """Return a small suite with the report's plugin, whose facts are complete."""
    found = make_suite(pytester, monkeypatch)
    pytester.makeconftest(
        CONFTEST.replace('["benchmarks', '["benchmarks.report.plugin", "benchmarks')
    )
    common = {
        "technique": "mine<b>", "device": "cpu", "workload": "digits", "data": "d", "simulated": False
    }  # fmt: skip
    timed = {"timing": "wall", "batch_size": 1, "latency_ms": 1.0}
    found.write({"size": common, "accuracy": common, "latency": common | timed, "cost": common})
    return found


def test_a_run_of_pytest_writes_its_report(suite: Suite) -> None:
    result = suite.run("--report=out")
    folder = suite.pytester.path / "out"
    result.stdout.fnmatch_lines(["report: out/report.html", "report: out/summary.md"])
    text = (folder / "report.html").read_text()
    assert "mine&lt;b&gt;" in text
    assert re.search(r"90\.00 \(87\.\d\d–91\.\d\d\)", text)
    assert result.ret == 0


def test_a_gated_run_says_what_the_gate_said(suite: Suite) -> None:
    suite.run("--benchmark-json=history.json").assert_outcomes(passed=4)
    facts = json.loads((suite.pytester.path / "facts.json").read_text())
    suite.write({name: fact for name, fact in facts.items() if name != "size"} | {
        "size": facts["size"] | {"stored_bytes": 1001},
        "cost": facts["cost"] | {"time_s": 9.0},
    })  # fmt: skip
    result = suite.gate("--report=out")
    assert result.ret == 1
    said = (suite.pytester.path / "out/summary.md").read_text()
    assert "Against `history.json`: 4 benchmarks compared: 2 worse, 0 better." in said
    assert "- `test_bench.py::test_it[size]: size 1,000 -> 1,001 bytes" in said
    page = (suite.pytester.path / "out/report.html").read_text()
    assert "<li>test_bench.py::test_it[size]: size 1,000 -&gt; 1,001 bytes" in page
    assert "- `test_bench.py::test_it[cost]: mean 1000 ms -> 9000 ms (tolerance 50%)`" in said


def test_without_the_gate_a_named_file_is_compared_with(suite: Suite) -> None:
    suite.run("--benchmark-json=history.json").assert_outcomes(passed=4)
    result = suite.run("--report=out", "--benchmark-compare=history.json")
    assert result.ret == 0
    assert (
        "Against `history.json`: 4 benchmarks compared: 0 worse, 0 better."
        in (suite.pytester.path / "out/summary.md").read_text()
    )


def test_a_run_that_measured_nothing_has_no_report(suite: Suite) -> None:
    result = suite.run("--report=out", "-k", "nothing")
    result.stdout.fnmatch_lines(["no report: no benchmark of this run recorded anything"])
    assert names(suite.pytester.path / "out") == []


@pytest.mark.parametrize("place", ["test_bench.py", "/proc/nowhere"])
def test_a_folder_that_cannot_be_is_a_usage_error_before_any_test(suite: Suite, place: str) -> None:
    result = suite.run(f"--report={place}")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert f"--report {place}: " in result.stderr.str()
    assert "passed" not in result.stdout.str()
