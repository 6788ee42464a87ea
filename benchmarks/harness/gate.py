"""The gate: a pytest plugin that fails a run which is larger, worse or slower than a saved one.

`--benchmark-compare=FILE --benchmark-compare-fail=mean:25%` gates the plugin's own times as ever,
and with them size, accuracy and speed-up (judge.py). Evidence that cannot be used fails too: nothing
matched, an entry gone, benchmarks disabled, other data. On another machine times are advisory.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.harness.history import History, read_history
from benchmarks.harness.judge import comparable, rules
from compression.errors import CompressionError

KEY = pytest.StashKey["Gate"]()
"""The gate of a run that has one; its history tells a test what to measure twice."""
SUITE: Any = pytest.StashKey[dict[str, Any]]()
"""What this run says of itself; benchmarks/conftest.py fills it."""

MACHINE = ("device_name", "num_threads", "torch")
EVIDENCE = ("workload", "dataset_fingerprint", "recipe_fingerprint")
# They differ from run to run on one machine.
_VARYING = ("hz_actual", "hz_actual_friendly", "hz_advertised", "hz_advertised_friendly")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Set the gate up, before pytest-benchmark reads the same file."""
    config.stash[SUITE] = {}
    fails = config.getoption("benchmark_compare_fail", None)
    given = [a for a in config.invocation_params.args if "--benchmark-compare-fail" in str(a)]
    if not fails:
        return
    compare = config.getoption("benchmark_compare", None)
    if len(given) > 1:
        raise pytest.UsageError(
            "--benchmark-compare-fail was given more than once, and only the last would count: "
            "give one, with a list: --benchmark-compare-fail=mean:25%"
        )
    if not isinstance(compare, str) or not Path(compare).is_file():
        found = "the latest run" if compare is True else repr(compare)
        raise pytest.UsageError(
            f"the gate compares with a named file: pass --benchmark-compare=FILE, found {found}"
        )
    try:
        gate = Gate(config, read_history(Path(compare)))
    except CompressionError as error:
        raise pytest.UsageError(f"--benchmark-compare: {error}") from error
    config.stash[KEY] = gate
    config.pluginmanager.register(gate, "compression-gate")


@pytest.hookimpl(tryfirst=True)
def pytest_benchmark_compare_machine_info(machine_info: Any, compared_benchmark: Any) -> None:
    """Say of another machine what the gate says, not the plugin's page of both descriptions."""
    compared_benchmark["machine_info"] = machine_info


def pytest_benchmark_update_machine_info(
    config: pytest.Config, machine_info: dict[str, Any]
) -> None:
    """Write what identifies the machine and the data; leave out what varies by the minute."""
    machine_info["suite"] = dict(config.stash.get(SUITE, {}))
    cpu = machine_info.get("cpu")
    if isinstance(cpu, dict):
        for name in _VARYING:
            cpu.pop(name, None)


class Failures:
    """Keeps the node ids that failed, so that no saved run holds them."""

    def __init__(self) -> None:
        """Start without failures."""
        self.failed: set[str] = set()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note a failure in any phase."""
        if report.failed:
            self.failed.add(report.nodeid)

    def pytest_benchmark_update_json(self, output_json: dict[str, Any]) -> None:
        """Drop the entries of failed tests."""
        kept = [e for e in output_json["benchmarks"] if e["fullname"] not in self.failed]
        output_json["benchmarks"] = kept


@pytest.hookimpl
def pytest_sessionstart(session: pytest.Session) -> None:
    """Watch for failures in every run that may be saved."""
    session.config.pluginmanager.register(Failures(), "compression-failures")


class Gate:
    """Compares one run with its history when the session ends."""

    def __init__(self, config: pytest.Config, history: History) -> None:
        """Gate `config`'s run against `history`."""
        self.config, self.history = config, history
        self.selected: set[str] = set()
        self.deselected: set[str] = set()
        self.compared = 0
        self.regressions: list[str] = []
        self.unusable: list[str] = []
        self.advice: list[str] = []

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Note what was collected."""
        self.selected |= {item.nodeid for item in session.items}

    def pytest_deselected(self, items: list[pytest.Item]) -> None:
        """Note what was left out on purpose: it is not gone."""
        self.deselected |= {item.nodeid for item in items}

    # pytest-benchmark's wrapper around this hook has filled its results by now.
    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Judge, and set the exit status."""
        if hasattr(self.config, "workerinput"):
            return
        benchmarks = self.config._benchmarksession  # type: ignore[attr-defined]
        timings = [f"{name}: {what}" for name, what in benchmarks.performance_regressions]
        benchmarks.performance_regressions.clear()  # or a traceback would hide the summary
        self._judge(benchmarks, timings)
        if (self.regressions or self.unusable) and session.exitstatus in (0, None):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def _judge(self, benchmarks: Any, timings: list[str]) -> None:
        if benchmarks.disabled:
            self.unusable.append(
                "benchmarks were disabled (xdist or --benchmark-disable), so nothing was compared; "
                "run with -n 0"
            )
            return
        here = self.config.stash[SUITE]
        differing = [k for k in EVIDENCE if here.get(k) != self.history.suite.get(k)]
        if differing:
            self.unusable.append(f"{self._differences(differing)}: nothing can be compared")
            return
        self.unusable += self._gone()
        elsewhere = [k for k in MACHINE if here.get(k) != self.history.suite.get(k)]
        if elsewhere:
            self.advice.append(f"{self._differences(elsewhere)}: times are advisory")
        times = self.advice if elsewhere else self.regressions
        times += timings
        same = here.get("baseline_fingerprint") == self.history.suite.get("baseline_fingerprint")
        for entry in benchmarks.benchmarks:
            then = self.history.entries.get(entry.fullname)
            if then is not None and not entry.has_error:
                self._compare(entry, then.get("extra_info", {}), times, same_weights=same)
        if not self.compared:
            self.unusable.append("no benchmark of this run has an entry in the history")

    def _compare(self, entry: Any, then: Any, times: list[str], *, same_weights: bool) -> None:
        now = entry.extra_info
        self.compared += 1
        rule = rules(same_weights=same_weights).get(str(now.get("metric")))
        if rule is None:  # plain times, which pytest-benchmark has judged
            return
        why = comparable(now, then)
        try:
            verdict = None if why else rule(now, then)
        except ValueError as error:
            why = str(error)
        if why:
            self.unusable.append(f"{entry.fullname}: {why}")
        elif verdict:
            found = times if now["metric"] == "latency" else self.regressions
            found.append(f"{entry.fullname}: {verdict}")

    def _gone(self) -> Iterator[str]:
        ran = {entry.fullname for entry in self.config._benchmarksession.benchmarks}  # type: ignore[attr-defined]
        scope = [str(arg) for arg in self.config.args]
        if any("::" in arg for arg in scope):
            return
        folders = [(self.config.invocation_params.dir / arg).resolve() for arg in scope]
        for name in self.history.entries:
            file = (self.config.rootpath / name.partition("::")[0]).resolve()
            if not any(file.is_relative_to(folder) for folder in folders):
                continue
            if name not in self.selected | self.deselected:
                yield f"{name}: in the history, gone from this run (renamed or removed?)"
            elif name in self.selected and name not in ran:
                yield f"{name}: in the history, but skipped or failed in this run"

    def _differences(self, keys: list[str]) -> str:
        here, there = self.config.stash[SUITE], self.history.suite
        return ", ".join(f"{k} is {here.get(k)!r}, the history's {there.get(k)!r}" for k in keys)

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Print a line a failure and one of verdict."""
        terminalreporter.section(f"gate: {self.history.path}", sep="-")
        for line in self.advice:
            terminalreporter.line(f"advisory: {line}", yellow=True)
        for line in [*self.unusable, *self.regressions]:
            terminalreporter.line(f"FAILED: {line}", red=True)
        terminalreporter.line(
            f"gate: {self.compared} of {len(self.history.entries)} compared, "
            f"{len(self.regressions)} regressions, {len(self.unusable)} not usable"
        )
