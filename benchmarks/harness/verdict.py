"""The gate's verdict on one run: what regressed, what cannot be used, what is only advice."""

from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from benchmarks.harness.history import History
from benchmarks.harness.judge import comparable, rules

MACHINE = ("device_name", "num_threads", "torch")
EVIDENCE = ("workload", "dataset_fingerprint", "recipe_fingerprint")
_FINISHED = (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.NO_TESTS_COLLECTED)


class Gate:
    """Compares one run with its history when the session ends."""

    def __init__(
        self, config: pytest.Config, history: History, suite: Mapping[str, Any], *, narrowed: bool
    ) -> None:
        """Gate the run of `config`; `suite` says of it what the history says of itself.

        `narrowed`: the command line leaves tests out on purpose, so that they are not gone.
        """
        self.config, self.history, self.suite = config, history, suite
        self.narrowed = narrowed
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
        """Note what was left out."""
        self.deselected |= {item.nodeid for item in items}

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
        else:
            self._judge(benchmarks)
        if (self.regressions or self.unusable) and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def _judge(self, benchmarks: Any) -> None:
        if benchmarks.disabled:
            self.unusable.append(
                "benchmarks were disabled (xdist or --benchmark-disable), so nothing was compared; "
                "run with -n 0"
            )
            return
        if not benchmarks.benchmarks:
            self.unusable.append("no benchmark ran: all were skipped, failed or deselected")
            return
        differing = self._differing(EVIDENCE)
        if differing:
            self.unusable.append(f"{differing}: nothing can be compared")
            return
        self.unusable += self._gone({entry.fullname for entry in benchmarks.benchmarks})
        elsewhere = self._differing(MACHINE)
        if elsewhere:
            self.advice.append(f"{elsewhere}: times are advisory")
        times = self.advice if elsewhere else self.regressions
        for entry in benchmarks.benchmarks:
            then = self.history.entries.get(entry.fullname)
            if then is not None and not entry.has_error:
                self.compared += 1
                times += _slower(entry, then["stats"], benchmarks.compare_fail)
                self._compare(entry, then.get("extra_info", {}), times)
        if not self.compared:
            self.unusable.append("no benchmark of this run has an entry in the history")

    def _compare(self, entry: Any, then: Any, times: list[str]) -> None:
        now = entry.extra_info
        same = not self._differing(["baseline_fingerprint"])
        gated = rules(same_weights=same)
        if not {now.get("metric"), then.get("metric")} & gated.keys():
            return  # plain times
        why, verdict = comparable(now, then), None
        try:
            verdict = None if why else gated[now["metric"]](now, then)
        except ValueError as error:
            why = str(error)
        if why:
            self.unusable.append(f"{entry.fullname}: {why}")
        elif verdict:
            found = times if now["metric"] == "latency" else self.regressions
            found.append(f"{entry.fullname}: {verdict}")

    def _gone(self, ran: set[str]) -> Iterator[str]:
        scope = [str(arg) for arg in self.config.args]
        if any("::" in arg for arg in scope):
            return
        folders = [(self.config.invocation_params.dir / arg).resolve() for arg in scope]
        for name in self.history.entries:
            file = (self.config.rootpath / name.partition("::")[0]).resolve()
            if not any(file.is_relative_to(folder) for folder in folders):
                continue
            if name in self.selected:
                if name not in ran:
                    yield f"{name}: in the history, but skipped or failed in this run"
            elif name not in self.deselected:
                yield f"{name}: in the history, gone from this run (renamed or removed?)"
            elif not self.narrowed:
                yield f"{name}: in the history, left out of a full run (a new mark or default -m?)"

    def _differing(self, keys: Any) -> str:
        here, there = self.suite, self.history.suite
        return ", ".join(
            f"{k} is {here.get(k)!r}, the history's {there.get(k)!r}"
            for k in keys
            if here.get(k) != there.get(k)
        )

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Print a line a failure and one of verdict."""
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
