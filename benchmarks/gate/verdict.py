"""The gate's verdict on one run: what regressed, what cannot be used, what is only advice."""

from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from benchmarks.gate.changes import EVIDENCE, differences, noise_of, why_advisory
from benchmarks.gate.evidence import comparison_problem, damage
from benchmarks.gate.history import History
from benchmarks.gate.rules import rules
from benchmarks.gate.scope import Scope
from benchmarks.gate.sentences import group_by_reason

_FINISHED = (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.NO_TESTS_COLLECTED)


class Gate:
    """Compares one run with its history when the session ends."""

    def __init__(
        self, config: pytest.Config, history: History, suite: Mapping[str, Any], scope: Scope
    ) -> None:
        """Gate the run of `config`.

        `suite`: its machine and data, as the history names its own. `scope`: what it was asked to run;
        what it leaves out on purpose is not gone.
        """
        self.config, self.history, self.suite, self.scope = config, history, suite, scope
        self.compared = 0
        self.regressions: list[str] = []
        self.unusable: list[str] = []
        self.advice: list[str] = []

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Note what was collected."""
        self.scope.selected |= {item.nodeid for item in session.items}

    def pytest_deselected(self, items: list[pytest.Item]) -> None:
        """Note what was left out."""
        self.scope.deselected |= {item.nodeid for item in items}

    # pytest-benchmark's wrapper around this hook has filled its results by now.
    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Judge, and set the exit status."""
        if hasattr(self.config, "workerinput") or self.config.option.collectonly:
            return
        benchmarks = self.config._benchmarksession  # type: ignore[attr-defined]
        benchmarks.performance_regressions.clear()  # or a traceback would hide the summary
        if session.shouldfail or session.shouldstop or session.exitstatus not in _FINISHED:
            self.unusable.append("the run stopped before its end, so nothing was compared")
        elif refused := self._refusal(benchmarks):
            self.unusable.append(refused)
        else:
            self._judge(benchmarks)
        if (self.regressions or self.unusable) and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def _refusal(self, benchmarks: Any) -> str:
        """Return why nothing can be compared; empty where it can."""
        if benchmarks.disabled:
            return (
                "benchmarks were disabled (xdist or --benchmark-disable), so nothing was compared; "
                "run with -n 0"
            )
        if not benchmarks.benchmarks:
            return "no benchmark ran: all were skipped, failed or deselected"
        differing = differences(self.suite, self.history.suite, EVIDENCE)
        return f"{differing}: nothing can be compared" if differing else ""

    def _judge(self, benchmarks: Any) -> None:
        """Fill regressions, unusable and advice, entry by entry."""
        ran = {entry.fullname for entry in benchmarks.benchmarks}
        self._judge_coverage(ran)
        facts = {entry.fullname: entry.extra_info for entry in benchmarks.benchmarks}
        advisory = [*why_advisory(facts, self.suite, self.history)]
        self.advice += [f"{reason}: times are advisory" for reason in advisory]
        noisy = {}
        for entry in benchmarks.benchmarks:
            then = self.history.entries.get(entry.fullname)
            if then is None or entry.has_error:
                continue
            self.compared += 1
            old = then.get("extra_info", {})
            if why := comparison_problem(entry.extra_info, old):
                self.unusable.append(f"{entry.fullname}: {why}")
                continue
            if why := noise_of(entry.extra_info, old):
                noisy[entry.fullname] = f"{why}: its times are advisory"
            times = self.advice if advisory or why else self.regressions
            self._compare(entry, then, benchmarks.compare_fail, times)
        self.advice += group_by_reason(noisy.items())
        if not self.compared:
            self.unusable.append("no benchmark of this run has an entry in the history")

    def _judge_coverage(self, ran: set[str]) -> None:
        """Name what only one of the two runs has, and damaged entries that nothing is compared with."""
        self.unusable += group_by_reason(self.scope.missing([*self.history.entries], ran))
        self.unusable += group_by_reason(self._damages(ran))
        self.advice += group_by_reason(
            (name, "not in the history, so nothing gates it")
            for name in sorted(ran - self.history.entries.keys())
        )

    def _compare(self, entry: Any, then: Any, checks: Any, times: list[str]) -> None:
        now, old = entry.extra_info, then.get("extra_info", {})
        # One round says what the machine did in it.
        once = min(entry["rounds"], then["stats"]["rounds"]) == 1
        for line in _slower(entry, then["stats"], checks):
            (self.advice if once else times).append(line + " of one round" * once)
        same = not differences(self.suite, self.history.suite, ["baseline_fingerprint"])
        rule = rules(same_weights=same).get(str(now.get("metric")))
        verdict = rule(now, old) if rule else None
        if verdict:
            lines = times if now["metric"] == "latency" else self.regressions
            lines.append(f"{entry.fullname}: {verdict}")

    def _damages(self, ran: set[str]) -> Iterator[tuple[str, str]]:
        """Name the damaged entries of the history that this run does not compare."""
        for name, entry in self.history.entries.items():
            if name not in ran and (why := damage(entry.get("extra_info", {}))):
                yield name, f"the history has {why}"

    @pytest.hookimpl(trylast=True)  # below every table
    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Print one line per failure, then the verdict."""
        if self.config.option.collectonly:
            return
        terminalreporter.section(f"gate: {self.history.path}", sep="-")
        for line in self.advice:
            terminalreporter.line(f"advisory: {line}", yellow=True)
        for line in [*self.unusable, *self.regressions]:
            terminalreporter.line(f"FAILED: {line}", red=True)
        terminalreporter.line(
            f"gate: {self.compared} of {len(self.history.entries)} compared, "
            f"{len(self.regressions)} regressions, {len(self.unusable)} not usable"
        )


def _slower(entry: Any, then: Mapping[str, Any], checks: Any) -> Iterator[str]:
    """Name the native times that fail `--benchmark-compare-fail`."""
    for check in checks:
        now, old = entry[check.field], then[check.field]
        # The plugin takes any percentage of a spread of 0 for a regression, also that to 0.
        if now > old and check.fails(entry, then):
            unit = "%" if "Percentage" in type(check).__name__ else " s"
            yield (
                f"{entry.fullname}: {check.field} {_ms(old)} -> {_ms(now)} "
                f"(tolerance {check.threshold:g}{unit})"
            )


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.4g} ms"
