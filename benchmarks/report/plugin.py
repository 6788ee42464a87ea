"""A pytest plugin: `--report DIR` writes the report of a run when it ends."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from benchmarks.facts.record import Facts, facts_of, finished_tests
from benchmarks.gate.changes import Changes, changes
from benchmarks.gate.history import read_history
from benchmarks.gate.plugin import KEY, SUITE
from benchmarks.report.folder import make_folder
from benchmarks.report.page.runs import Run, checked
from benchmarks.report.written import write_report
from compression.errors import CompressionError


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option."""
    group = parser.getgroup("compression")
    group.addoption("--report", type=Path, metavar="DIR", help="write report.html and summary.md")


def pytest_configure(config: pytest.Config) -> None:
    """Make the folder now, not after hours of measuring."""
    folder = config.getoption("--report")
    if folder is not None:
        try:
            make_folder(folder, "--report")
        except CompressionError as error:
            raise pytest.UsageError(str(error)) from error


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Write the report, or say why there is none."""
    folder = config.getoption("--report")
    if folder is None or config.option.collectonly:
        return
    try:
        reports = finished_tests(terminalreporter)
        facts = {report.nodeid: facts for report in reports for facts in facts_of([report])}
        run = _run(facts, config)
        found, against = _changes(config, facts)
        for path in write_report(folder, [run], found, against=against, option="--report"):
            terminalreporter.line(f"report: {path}")
    except CompressionError as error:
        terminalreporter.line(f"no report: {error}", red=True)


def _run(found: dict[str, Facts], config: pytest.Config) -> Run:
    """Return this run, by what its tests recorded, as if it had been saved and read again."""
    if not found:
        raise CompressionError("no benchmark of this run recorded anything")
    try:
        facts = {name: checked(name, known) for name, known in found.items() if "metric" in known}
    except ValueError as error:
        raise CompressionError(str(error)) from error
    session = getattr(config, "_benchmarksession", None)
    machine = {**getattr(session, "machine_info", {}), "suite": dict(config.stash[SUITE])}
    commit = config.hook.pytest_benchmark_generate_commit_info(config=config) if session else {}
    return Run(Path("this run"), datetime.now(UTC).isoformat(), machine, commit, facts)


def _changes(config: pytest.Config, facts: dict[str, Facts]) -> tuple[Changes | None, str]:
    """Return what changed against the file of --benchmark-compare, and its name."""
    compared = config.getoption("benchmark_compare", None)
    if not isinstance(compared, str) or not Path(compared).is_file():
        return None, ""
    found = changes(facts, config.stash[SUITE], read_history(Path(compared)))
    gate = config.stash.get(KEY, None)
    if gate is not None:  # it judged more: times, and what should have run
        found.regressions, found.unusable, found.advice = (
            gate.regressions,
            gate.unusable,
            gate.advice,
        )
    return found, Path(compared).name
