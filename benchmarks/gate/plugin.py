"""The gate: a pytest plugin that fails a run which is larger, worse or slower than a saved one.

`--benchmark-compare=FILE --benchmark-compare-fail=mean:25%` gates the plugin's own times as ever,
and with them size, accuracy and speed-up (rules.py). Unusable evidence fails too: nothing matched, an
entry gone, benchmarks disabled, other data. On another machine times are advisory.
"""

from pathlib import Path
from typing import Any

import pytest

from benchmarks.gate.history import COUNT, read_history
from benchmarks.gate.scope import Scope, arguments
from benchmarks.gate.verdict import Gate
from compression.errors import CompressionError

KEY = pytest.StashKey[Gate]()
"""The gate of a gated run; its history says which tests must measure twice."""
SUITE: Any = pytest.StashKey[dict[str, Any]]()
"""What this run says of itself; benchmarks/conftest.py fills it in."""

# They differ from run to run on one machine.
_VARYING = ("hz_actual", "hz_actual_friendly", "hz_advertised", "hz_advertised_friendly")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Set the gate up, before pytest-benchmark reads the same file."""
    config.stash[SUITE] = {}
    gated = bool(config.getoption("benchmark_compare_fail", None))
    path = _history_path(config) if gated else _named_file(config)
    if path is None:
        return
    try:
        history = read_history(path)
    except CompressionError as error:
        raise pytest.UsageError(f"--benchmark-compare: {error}") from error
    if not gated:
        return
    gate = Gate(config, history, config.stash[SUITE], Scope(config))
    config.stash[KEY] = gate
    config.pluginmanager.register(gate, "compression-gate")


def _history_path(config: pytest.Config) -> Path:
    rules = [a for a in arguments(config) if a.startswith("--benchmark-compare-fail")]
    if len(rules) > 1:
        raise pytest.UsageError(
            "--benchmark-compare-fail was given more than once, and only the last would count: "
            "give one, with a list: --benchmark-compare-fail mean:25% min:25%"
        )
    compare = config.getoption("benchmark_compare")
    if not isinstance(compare, str) or not Path(compare).is_file():
        missing = repr(compare or "no such option")
        instead = "the latest run" if compare is True else f"{missing}, which is no file"
        raise pytest.UsageError(
            f"the gate compares with a named file: pass --benchmark-compare=FILE, found {instead}"
        )
    written = config.getoption("benchmark_json")
    if written is not None and written.resolve() == Path(compare).resolve():
        raise pytest.UsageError(
            f"--benchmark-json would overwrite the history {compare} with a run that may fail, and "
            "the next run would pass: write to another file"
        )
    return Path(compare)


def _named_file(config: pytest.Config) -> Path | None:
    """Return the file to compare with, None where the plugin searches its storage for a number."""
    compare = config.getoption("benchmark_compare", None)
    if not isinstance(compare, str):
        return None
    path = Path(compare)
    # What is longer than folder/name the plugin cannot search for: it ends in a traceback.
    return path if path.is_file() or len(path.parts) > 2 else None


@pytest.hookimpl(tryfirst=True)
def pytest_benchmark_compare_machine_info(
    config: pytest.Config, machine_info: Any, compared_benchmark: Any
) -> None:
    """Leave the comparison of machines to the gate; without one the plugin still warns of another.

    Both compare before the first test fills this run's `suite`: it would always differ.
    """
    if KEY in config.stash:
        compared_benchmark["machine_info"] = machine_info
    elif isinstance(compared_benchmark.get("machine_info"), dict):
        compared_benchmark["machine_info"]["suite"] = machine_info["suite"]


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
        """Drop the entries of failed tests, and write how many are left."""
        kept = [e for e in output_json["benchmarks"] if e["fullname"] not in self.failed]
        output_json["benchmarks"] = kept
        output_json[COUNT] = len(kept)


@pytest.hookimpl
def pytest_sessionstart(session: pytest.Session) -> None:
    """Watch for failures in every run that may be saved."""
    session.config.pluginmanager.register(Failures(), "compression-failures")
