"""The gate in whole runs of pytest: what fails, and what must not."""

import json
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]

CONFTEST = """
import json, pathlib, pytest
from benchmarks.harness.gate import SUITE
pytest_plugins = ["benchmarks.harness.gate"]

@pytest.fixture(autouse=True)
def suite(request):
    here = json.loads(pathlib.Path("suite.json").read_text())
    request.config.stash[SUITE].update(here)
"""
BENCHMARKS = """
import json, pathlib, pytest
from benchmarks.harness.clock import CLOCK, replay
from benchmarks.harness.results import record

FACTS = json.loads(pathlib.Path("facts.json").read_text())

@pytest.mark.parametrize("name", FACTS)
@pytest.mark.benchmark(timer=CLOCK)
def test_it(benchmark, request, name):
    facts = dict(FACTS[name])
    replay(benchmark, [facts.pop("time_s", 1.0)] * 5)
    record(benchmark, request, **facts)
    assert not facts.get("broken")
"""
SUITE = {
    "workload": "digits",
    "dataset_fingerprint": "d",
    "recipe_fingerprint": "r",
    "baseline_fingerprint": "b",
    "device_name": "cpu",
    "num_threads": 2,
    "torch": "2",
}
FACTS: dict[str, dict[str, Any]] = {
    "size": {"metric": "size", "stored_bytes": 1000},
    "accuracy": {"metric": "accuracy", "correct": 900, "total": 1000},
    "latency": {"metric": "latency", "speed_up": 2.0, "speed_up_low": 1.9, "speed_up_high": 2.1},
    "cost": {"metric": "cost", "seconds": 1.0},
}


class Suite:
    """A small suite with a saved run, to change and run again."""

    def __init__(self, pytester: pytest.Pytester) -> None:
        self.pytester = pytester
        pytester.makeconftest(CONFTEST)
        pytester.makepyfile(test_bench=BENCHMARKS)
        self.write()
        self.run("--benchmark-json=history.json").assert_outcomes(passed=4)

    def write(self, changes: Any = None, suite: Any = None, drop: str = "") -> None:
        facts = {k: {**v, **(changes or {}).get(k, {})} for k, v in FACTS.items() if k != drop}
        (self.pytester.path / "facts.json").write_text(json.dumps(facts))
        (self.pytester.path / "suite.json").write_text(json.dumps({**SUITE, **(suite or {})}))

    def run(self, *arguments: str) -> pytest.RunResult:
        run = self.pytester.runpytest_inprocess
        if "-n" in arguments:
            run = self.pytester.runpytest_subprocess
        return run("-p", "no:cacheprovider", *arguments)

    def gate(self, *arguments: str, fail: str = "mean:50%") -> pytest.RunResult:
        return self.run(
            "--benchmark-compare=history.json", f"--benchmark-compare-fail={fail}", *arguments
        )


@pytest.fixture
def suite(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Suite:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    # In a worker of xdist pytest-benchmark would disable the runs inside these tests too.
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)
    monkeypatch.delenv("PYTEST_XDIST_WORKER_COUNT", raising=False)
    return Suite(pytester)


def verdict(result: pytest.RunResult, status: int, *lines: str) -> None:
    text = result.stdout.str() + result.stderr.str()
    assert result.ret == status, text
    for line in lines:
        assert line in text, text
    assert "Traceback" not in text
    assert "PerformanceRegression" not in text


def test_the_same_and_a_better_run_pass(suite: Suite) -> None:
    verdict(suite.gate(), 0, "4 of 4 compared, 0 regressions, 0 not usable")
    suite.write(
        {
            "size": {"stored_bytes": 10},
            "accuracy": {"correct": 1000},
            "latency": {"speed_up": 9.0, "speed_up_low": 8.0, "speed_up_high": 10.0},
            "cost": {"time_s": 0.1},
        }
    )
    verdict(suite.gate(), 0, "4 of 4 compared, 0 regressions")


WORSE = {
    "size": ({"stored_bytes": 1001}, "size 1,000 -> 1,001 bytes"),
    "accuracy": ({"correct": 800}, "accuracy 90.00% -> 80.00%"),
    "latency": ({"speed_up": 1.0, "speed_up_low": 0.9, "speed_up_high": 1.1}, "speed-up 2.00x"),
    "cost": ({"time_s": 2.0}, "mean"),
}


@pytest.mark.parametrize("name", WORSE)
def test_a_worse_run_fails_with_a_line(suite: Suite, name: str) -> None:
    change, line = WORSE[name]
    suite.write({name: change})
    verdict(suite.gate(), 1, line, "1 regressions", "4 passed")


def test_an_entry_that_is_gone_fails_and_a_deselected_one_does_not(suite: Suite) -> None:
    verdict(suite.gate("-k", "size"), 0, "1 of 4 compared, 0 regressions, 0 not usable")
    suite.write(drop="accuracy")
    verdict(suite.gate(), 1, "test_it[accuracy]: in the history, gone from this run")


def test_nothing_matched_fails(suite: Suite) -> None:
    history = json.loads((suite.pytester.path / "history.json").read_text())
    for entry in history["benchmarks"]:
        entry["fullname"] = "elsewhere/" + entry["fullname"]
    (suite.pytester.path / "history.json").write_text(json.dumps(history))
    verdict(suite.gate(), 1, "no benchmark of this run has an entry in the history")


@pytest.mark.parametrize("arguments", [["--benchmark-disable"], ["-n", "2"]])
def test_disabled_benchmarks_fail(suite: Suite, arguments: list[str]) -> None:
    verdict(suite.gate(*arguments), 1, "benchmarks were disabled", "run with -n 0")


def test_other_data_is_refused(suite: Suite) -> None:
    suite.write(suite={"dataset_fingerprint": "other"})
    verdict(suite.gate(), 1, "dataset_fingerprint is 'other', the history's 'd': nothing can be")


def test_on_another_machine_times_are_advisory_and_size_still_gates(suite: Suite) -> None:
    slow = {"latency": WORSE["latency"][0], "cost": WORSE["cost"][0]}
    suite.write(slow, suite={"device_name": "another"})
    verdict(suite.gate(), 0, "advisory:", "speed-up 2.00x", "0 regressions")
    suite.write({**slow, "size": {"stored_bytes": 2000}}, suite={"device_name": "another"})
    verdict(suite.gate(), 1, "FAILED:", "1 regressions")


def test_other_weights_may_differ_in_size_by_little(suite: Suite) -> None:
    suite.write({"size": {"stored_bytes": 1004}}, suite={"baseline_fingerprint": "other"})
    verdict(suite.gate(), 0, "0 regressions")


def damaged(path: Path, kind: str) -> None:
    history = json.loads(path.read_text())
    match kind:
        case "truncated":
            path.write_text(path.read_text()[:500])
        case "a list":
            path.write_text("[]")
        case "nested":
            path.write_text("[" * 100_000)
        case "empty":
            path.write_text(json.dumps({**history, "benchmarks": []}))
        case "nan" | "zero":
            mean = float("nan") if kind == "nan" else 0
            history["benchmarks"][0]["stats"]["mean"] = mean
            path.write_text(json.dumps(history))
        case "missing":
            path.unlink()


@pytest.mark.parametrize(
    "kind", ["truncated", "a list", "nested", "empty", "nan", "zero", "missing"]
)
def test_a_history_that_cannot_be_used_is_a_usage_error(suite: Suite, kind: str) -> None:
    damaged(suite.pytester.path / "history.json", kind)
    verdict(suite.gate(), 4, "history.json")


def test_the_gate_wants_one_named_file_and_one_rule(suite: Suite) -> None:
    run = suite.run(
        "--benchmark-compare", "--benchmark-compare-fail=mean:5%", "--benchmark-autosave"
    )
    verdict(run, 4, "a named file")
    verdict(suite.gate("--benchmark-compare-fail=min:5%"), 4, "more than once")
    verdict(suite.gate(fail="accuracy:2%"), 4)


def test_a_failed_test_is_not_saved_nor_what_varies_by_the_minute(suite: Suite) -> None:
    suite.write({"size": {"broken": True}})
    suite.run("--benchmark-json=second.json").assert_outcomes(passed=3, failed=1)
    saved = json.loads((suite.pytester.path / "second.json").read_text())
    names = {entry["fullname"] for entry in saved["benchmarks"]}
    assert names == {f"test_bench.py::test_it[{n}]" for n in ("accuracy", "latency", "cost")}
    assert saved["machine_info"]["suite"] == SUITE
    assert not [key for key in saved["machine_info"]["cpu"] if key.startswith("hz_")]


def test_replayed_times_are_the_stats(suite: Suite) -> None:
    saved = json.loads((suite.pytester.path / "history.json").read_text())
    for entry in saved["benchmarks"]:
        assert entry["stats"]["mean"] == entry["stats"]["min"] == 1.0
        assert entry["stats"]["rounds"] == 5
        assert entry["options"]["timer"] == "replay"


def test_canary_on_the_plugins_internals(pytestconfig: pytest.Config, benchmark: Any) -> None:
    session = pytestconfig._benchmarksession  # type: ignore[attr-defined]
    assert isinstance(session.performance_regressions, list)
    assert isinstance(session.benchmarks, list)
    assert isinstance(session.disabled, bool)
    benchmark(lambda: None)
    for entry in session.benchmarks:
        assert entry.fullname
        assert isinstance(entry.extra_info, dict)
        assert isinstance(entry.has_error, bool)
