"""The gate in whole runs of pytest: what fails, and what must not."""

import json
import warnings
from typing import Any

import pytest
from pytest_benchmark.logger import PytestBenchmarkWarning

from tests.support.gated import BENCHMARKS, SUITE, Suite, accuracy_of, make_suite, verdict


@pytest.fixture
def suite(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Suite:
    return make_suite(pytester, monkeypatch)


def test_the_same_and_a_better_run_pass(suite: Suite) -> None:
    verdict(suite.gate(), 0, "4 of 4 compared, 0 regressions, 0 not usable")
    # Five equal times have no spread: the plugin itself calls 0 against 0 a regression.
    verdict(suite.gate(fail="stddev:5%"), 0, "4 of 4 compared, 0 regressions")
    suite.write(
        {
            "size": {"stored_bytes": 10},
            "accuracy": accuracy_of(1000),
            "latency": {"speed_up": 9.0, "speed_up_low": 8.0, "speed_up_high": 10.0},
            "cost": {"time_s": 0.1},
        }
    )
    verdict(suite.gate(), 0, "4 of 4 compared, 0 regressions")


WORSE = {
    "size": ({"stored_bytes": 1001}, "size 1,000 -> 1,001 bytes"),
    "accuracy": (accuracy_of(800), "accuracy 90.00% -> 80.00%"),
    "latency": ({"speed_up": 1.0, "speed_up_low": 0.9, "speed_up_high": 1.1}, "speed-up 2.00x"),
    "cost": ({"time_s": 2.0}, "[cost]: mean 1000 ms -> 2000 ms (tolerance 50%)"),
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


def test_an_entry_left_out_by_default_is_gone_too(suite: Suite) -> None:
    suite.pytester.makeini('[pytest]\naddopts = -m "not sweep"\nmarkers = sweep')
    verdict(suite.gate(), 0, "4 of 4 compared")
    swept = 'pytest.param("size", marks=pytest.mark.sweep)'
    marked = BENCHMARKS.replace("FACTS)\n@", f'[*(FACTS.keys() - {{"size"}}), {swept}])\n@')
    suite.pytester.makepyfile(test_bench=marked)
    verdict(suite.gate(), 1, "test_it[size]: in the history, left out of a full run")
    verdict(suite.gate("-m", "not sweep"), 0, "3 of 4 compared, 0 regressions, 0 not usable")


def test_a_skipped_entry_fails(suite: Suite) -> None:
    suite.pytester.makepyfile(
        test_bench=BENCHMARKS.replace(
            "    facts = ", '    if name == "cost": pytest.skip("no")\n    facts = '
        )
    )
    verdict(suite.gate(), 1, "test_it[cost]: in the history, but skipped or failed", "3 of 4")


def test_a_run_that_stops_early_says_so_in_one_line(suite: Suite) -> None:
    suite.write({"size": {"broken": True}})
    verdict(suite.gate("-x"), 1, "the run stopped before its end", "0 regressions, 1 not usable")


def test_collecting_only_is_not_gated(suite: Suite) -> None:
    verdict(suite.gate("--collect-only"), 0, "4 tests collected")


def test_facts_that_are_no_longer_recorded_fail(suite: Suite) -> None:
    suite.write({"size": {"metric": None}})
    verdict(suite.gate(), 1, "test_it[size]: measures None, the history 'size'")


def test_nothing_matched_fails(suite: Suite) -> None:
    history = json.loads((suite.pytester.path / "history.json").read_text())
    for entry in history["benchmarks"]:
        entry["fullname"] = "elsewhere/" + entry["fullname"]
    (suite.pytester.path / "history.json").write_text(json.dumps(history))
    verdict(suite.gate(), 1, "no benchmark of this run has an entry in the history")


@pytest.mark.parametrize("arguments", [["--benchmark-disable"], ["-n", "1"]])
def test_disabled_benchmarks_fail(suite: Suite, arguments: list[str]) -> None:
    verdict(suite.gate(*arguments), 1, "benchmarks were disabled", "run with -n 0")


def test_a_run_of_skipped_benchmarks_fails(suite: Suite) -> None:
    verdict(suite.gate("--benchmark-skip"), 1, "no benchmark ran", "0 of 4 compared")


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


def test_the_gate_wants_one_named_file_and_one_rule(suite: Suite) -> None:
    run = suite.run(
        "--benchmark-compare", "--benchmark-compare-fail=mean:5%", "--benchmark-autosave"
    )
    verdict(run, 4, "a named file")
    verdict(suite.gate("--benchmark-compare-fail=min:5%"), 4, "more than once")
    verdict(suite.gate(fail="accuracy:2%"), 4, "Could not parse value: 'accuracy:2%'")
    verdict(suite.run("--benchmark-compare-fail=mean:5%"), 4, "a named file")
    verdict(suite.gate("--benchmark-json=history.json"), 4, "would overwrite the history")


def test_a_second_rule_in_the_environment_is_refused(suite: Suite, monkeypatch) -> None:
    monkeypatch.setenv("PYTEST_ADDOPTS", "--benchmark-compare-fail=min:5%")
    verdict(suite.gate(), 4, "more than once")


def test_comparing_alone_stays_the_plugins_own(suite: Suite) -> None:
    suite.write({"cost": {"time_s": 9.0}, "size": {"stored_bytes": 2000}})
    with warnings.catch_warnings(record=True) as caught:
        result = suite.run("--benchmark-compare=history.json")
    verdict(result, 0, "Comparing against benchmarks from: history.json")
    assert "gate:" not in result.stdout.str()
    assert caught == []
    path = suite.pytester.path / "history.json"
    history = json.loads(path.read_text())
    history["machine_info"]["node"] = "elsewhere"
    path.write_text(json.dumps(history))
    with pytest.warns(PytestBenchmarkWarning, match="machine_info is different"):
        verdict(suite.run("--benchmark-compare=history.json"), 0)


def test_a_failed_test_is_not_saved_nor_what_varies_by_the_minute(suite: Suite) -> None:
    suite.write({"size": {"broken": True}})
    suite.run("--benchmark-json=second.json").assert_outcomes(passed=3, failed=1)
    saved = json.loads((suite.pytester.path / "second.json").read_text())
    names = {entry["fullname"] for entry in saved["benchmarks"]}
    assert names == {f"test_bench.py::test_it[{n}]" for n in ("accuracy", "latency", "cost")}
    assert saved["machine_info"]["suite"] == SUITE
    assert not [key for key in saved["machine_info"]["cpu"] if key.startswith("hz_")]


CANARY = """
from benchmarks.timing.clock import CLOCK, replay
import os, pytest

@pytest.mark.benchmark(timer=CLOCK)
def test_it(benchmark):
    replay(benchmark, [float(os.environ["SECONDS"])])
    benchmark.extra_info["fact"] = 1
"""


class Probe:
    """Reads at the session's end what verdict.py and benchmarks/ending.py read of pytest-benchmark."""

    def __init__(self) -> None:
        self.seen: dict[str, Any] = {}

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        plugin: Any = session.config._benchmarksession  # type: ignore[attr-defined]
        entry, check = plugin.benchmarks[0], plugin.compare_fail[0]
        self.seen = {
            "disabled": plugin.disabled,
            "regressions": [name for name, _ in plugin.performance_regressions],
            "entry": (entry.fullname, entry.has_error, entry["mean"], entry.extra_info),
            "check": (check.field, check.threshold, type(check).__name__),
            "fails": bool(check.fails(entry, {"mean": 1.0})),
            "compared": [
                {name: then["extra_info"] for name, then in found.items()}
                for found in plugin.compared_mapping.values()
            ],
        }
        plugin.performance_regressions.clear()


def test_canary_on_the_plugins_internals(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)
    monkeypatch.setenv("SECONDS", "1.0")
    pytester.makepyfile(test_canary=CANARY)
    assert pytester.runpytest_inprocess("--benchmark-json=old.json").ret == 0
    monkeypatch.setenv("SECONDS", "2.0")
    arguments = ["--benchmark-compare=old.json", "--benchmark-compare-fail=mean:50%"]
    probe = Probe()
    assert pytester.runpytest_inprocess(*arguments, plugins=[probe]).ret == 0  # as it was cleared
    name = "test_canary.py::test_it"
    assert probe.seen == {
        "disabled": False,
        "regressions": ["test_it (old)"],
        "entry": (name, False, 2.0, {"fact": 1}),
        "check": ("mean", 50, "PercentageRegressionCheck"),
        "fails": True,
        "compared": [{name: {"fact": 1}}],
    }
