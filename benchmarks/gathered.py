"""A pytest plugin: the results of all workers in one JSON, and the case of a worker that was lost."""

import shlex
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks.facts.record import ENTRY, facts_of
from benchmarks.gate.plugin import SUITE
from benchmarks.hosts import prepare_workers

NEEDS_QUIET = "latency needs the benchmarks enabled: run with -n 0"
ONE_BASELINE = ("baseline_fingerprint", "dataset_fingerprint", "recipe_fingerprint")
"""What the workers of one run must agree in: else its rows are of several networks."""
_GATHERER = "compression-gathered"


class Gatherer:
    """Collects on the controller what the workers send."""

    def __init__(self, config: pytest.Config) -> None:
        """Start with nothing."""
        self.config = config
        self.suites: dict[str, Mapping[str, Any]] = {}
        self.lost: list[str] = []
        self.skipped = 0

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Make an entry of pytest-benchmark's of each test that recorded something."""
        if report.skipped and NEEDS_QUIET in str(report.longrepr):
            self.skipped += 1
        told: Any = dict(report.user_properties).get(ENTRY)
        if told and report.when == "call":
            facts = {name: value for part in facts_of([report]) for name, value in part.items()}
            told["times_s"] = told["times_s"] or [report.duration]
            session = self.config._benchmarksession  # type: ignore[attr-defined]
            session.benchmarks.append(_entry(told, facts))

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_setupnodes(self, config: pytest.Config, specs: list[Any]) -> None:
        """Check the hosts before any worker is started."""
        prepare_workers(config, specs)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """Take what a worker says of its machine and its data."""
        suite = getattr(node, "workeroutput", {}).get("suite")
        if suite:
            self.suites[node.gateway.id] = suite
            self.config.stash[SUITE].update(_merged([*self.suites.values()]))

    @pytest.hookimpl(optionalhook=True)
    def pytest_handlecrashitem(self, crashitem: str, report: Any, sched: Any) -> None:
        """Let the case of a worker that was lost run again, once; then say how it is run alone."""
        told = f"{report.longrepr}: "
        if getattr(sched, "lost", {}).get(crashitem) == 1:
            report.outcome = "rerun"
            self.lost.append(f"{told}it runs again on another worker")
        else:
            report.longrepr = f"{told}run it alone by pytest {shlex.quote(crashitem)} -n 0"

    def pytest_report_teststatus(self, report: Any) -> tuple[str, str, str] | None:
        """Count such a case as neither passed nor failed."""
        return ("rerun", "R", "RERUN") if report.outcome == "rerun" else None

    def differing(self) -> str:
        """Return how the workers' networks differ; empty where they are one."""
        for name in ONE_BASELINE:
            found = {suite[name]: worker for worker, suite in self.suites.items() if name in suite}
            if len(found) > 1:
                workers = ", ".join(f"{worker} {value}" for value, worker in found.items())
                return (
                    f"the rows are of several baselines ({name}: {workers}): give all hosts one "
                    "XDG_CACHE_HOME, data and torch, or pass --baseline CHECKPOINT"
                )
        return ""

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Fail a run whose rows are of several networks."""
        if self.differing() and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Say what is not in the table, and why."""
        for line in self.lost:
            terminalreporter.line(f"lost: {line}", yellow=True)
        if self.skipped:
            terminalreporter.line(
                f"no latency: {self.skipped} rows need a quiet machine; add them by a run with "
                "-n 0 -k test_latency"
            )
        if differing := self.differing():
            terminalreporter.line(f"FAILED: {differing}", red=True)


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    """Gather where xdist has workers."""
    if config.getoption("dist", "no") != "no" and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Gatherer(config), _GATHERER)


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Send from a worker what it says of its machine and its data."""
    if hasattr(session.config, "workeroutput"):
        told = session.config.stash[SUITE]
        # Exact types: xdist's transport knows no subclass of str, as torch's version is.
        plain = {name: str(v) if isinstance(v, str) else v for name, v in told.items()}
        session.config.workeroutput["suite"] = plain


def _merged(suites: list[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what the workers say; models of machines that differ stand beside each other."""
    merged = dict(suites[0])
    names = dict.fromkeys(str(suite.get("device_name", "")) for suite in suites)
    return merged | {"device_name": ", ".join(sorted(names))}


def _entry(told: Mapping[str, Any], facts: Mapping[str, Any]) -> Any:
    """Return what pytest-benchmark would have made of a test in this process."""
    from pytest_benchmark.stats import Metadata  # it costs a fifth of a second

    known = {name: value for name, value in told.items() if name != "times_s"}
    fixture = SimpleNamespace(**known, extra_info=dict(facts), cprofile_stats=None, has_error=False)
    entry = Metadata(fixture, 1, {})
    for seconds in told["times_s"]:
        entry.update(seconds)
    return entry
