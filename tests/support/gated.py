"""A small suite with a saved run, to change and run again under the gate."""

import copy
import json
from functools import cache
from typing import Any

import pytest
import torch
from pytest_benchmark import plugin

from benchmarks.facts.record import encode_images
from benchmarks.hosts import COUNT, NUMBER
from tests.support.places import ROOT

CONFTEST = """
import json, pathlib, pytest
from benchmarks.gate.plugin import SUITE
pytest_plugins = ["benchmarks.gate.plugin"]

@pytest.fixture(autouse=True)
def suite(request):
    here = json.loads(pathlib.Path("suite.json").read_text())
    request.config.stash[SUITE].update(here)
"""
BENCHMARKS = """
import json, pathlib, pytest
from benchmarks.timing.clock import CLOCK, replay
from benchmarks.facts.record import record

FACTS = json.loads(pathlib.Path("facts.json").read_text())

@pytest.mark.parametrize("name", FACTS)
@pytest.mark.benchmark(timer=CLOCK)
def test_it(benchmark, request, name):
    facts = {name: fact for name, fact in FACTS[name].items() if fact is not None}
    replay(benchmark, [facts.pop("time_s", 1.0)] * 5)
    broken = facts.pop("broken", False)
    record(benchmark, request, **facts)
    assert not broken
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


def accuracy_of(correct: int) -> dict[str, Any]:
    """Return the facts of an accuracy on a thousand images: the first ones are correct."""
    record = encode_images(torch.arange(1000) < correct)
    counts = {"correct": correct, "total": 1000, "correct_images": record}
    return {"metric": "accuracy", "accuracy": correct / 1000, **counts}


FACTS: dict[str, dict[str, Any]] = {
    "size": {"metric": "size", "stored_bytes": 1000},
    "accuracy": accuracy_of(900),
    "latency": {"metric": "latency", "speed_up": 2.0, "speed_up_low": 1.9, "speed_up_high": 2.1},
    "cost": {"metric": "cost", "seconds": 1.0},
}


_SAVED: list[str] = []

# Asked once: it starts a process, which takes as long as all the rest of such a run.
_cpu = cache(plugin.get_cpu_info)


class Suite:
    """A small suite with a saved run, to change and run again."""

    def __init__(self, pytester: pytest.Pytester) -> None:
        self.pytester = pytester
        pytester.makeconftest(CONFTEST)
        pytester.makepyfile(test_bench=BENCHMARKS)
        self.write()
        history = pytester.path / "history.json"
        if not _SAVED:  # one run serves every test of this process
            self.run("--benchmark-json=history.json").assert_outcomes(passed=4)
            _SAVED.append(history.read_text())
        history.write_text(_SAVED[0])

    def write(self, changes: Any = None, suite: Any = None, drop: str = "") -> None:
        facts = {k: {**v, **(changes or {}).get(k, {})} for k, v in FACTS.items() if k != drop}
        (self.pytester.path / "facts.json").write_text(json.dumps(facts))
        (self.pytester.path / "suite.json").write_text(json.dumps({**SUITE, **(suite or {})}))

    def run(self, *arguments: str) -> pytest.RunResult:
        return self.pytester.runpytest_inprocess("-p", "no:cacheprovider", *arguments)

    def gate(self, *arguments: str, fail: str = "mean:50%") -> pytest.RunResult:
        return self.run(
            "--benchmark-compare=history.json", f"--benchmark-compare-fail={fail}", *arguments
        )


def make_suite(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Suite:
    """Return a suite that no worker of xdist disturbs."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    # In a worker of xdist pytest-benchmark would disable the runs inside these tests too.
    for name in ("PYTEST_XDIST_WORKER", "PYTEST_XDIST_WORKER_COUNT", NUMBER, COUNT):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(plugin, "get_cpu_info", lambda: copy.deepcopy(_cpu()))
    return Suite(pytester)


def verdict(result: pytest.RunResult, status: int, *lines: str) -> None:
    text = result.stdout.str() + result.stderr.str()
    assert result.ret == status, text
    for line in lines:
        assert line in text, text
    assert "Traceback" not in text
    assert "PerformanceRegression" not in text
