"""Timers run their work once; measured times enter pytest-benchmark's stats to the bit."""

import json

import pytest
import torch

from benchmarks.timing.clock import (
    CLOCK,
    cuda_event_timer,
    cuda_graph_timer,
    replay,
    wall_timer,
)
from compression.errors import CompressionError

BENCHMARKS = """
import pytest
from benchmarks.timing.clock import CLOCK, replay

@pytest.mark.benchmark(timer=CLOCK)
@pytest.mark.parametrize("times", ["0.1", "0.1 0.30000000000000004 0.7"])
def test_replay(benchmark, times):
    times = [float(t) for t in times.split()]
    replay(benchmark, times)
    assert not benchmark.enabled or benchmark.stats.stats.data == times

def test_unmarked(benchmark):
    replay(benchmark, [0.1])
"""


@pytest.fixture
def suite(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    # In a worker of xdist pytest-benchmark would disable the runs inside these tests too.
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)
    pytester.makepyfile(test_bench=BENCHMARKS)
    return pytester


def test_replayed_times_are_the_stats_to_the_bit(suite: pytest.Pytester) -> None:
    result = suite.runpytest_inprocess("-p", "no:cacheprovider", "--benchmark-json=run.json")
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines(["*mark the test with @pytest.mark.benchmark(timer=CLOCK)*"])
    saved = json.loads((suite.path / "run.json").read_text())["benchmarks"]
    assert [entry["stats"]["data"] for entry in saved] == [[0.1], [0.1, 0.30000000000000004, 0.7]]
    assert {entry["options"]["timer"] for entry in saved} == {"replay"}


def test_replay_is_harmless_where_benchmarks_are_disabled(suite: pytest.Pytester) -> None:
    result = suite.runpytest_inprocess("-p", "no:cacheprovider", "--benchmark-disable")
    result.assert_outcomes(passed=3)


@pytest.mark.parametrize("bad", [[], [0.0], [1.0, -1.0], [float("nan")], [float("inf")]])
def test_what_is_no_duration_is_not_replayed(bad: list[float]) -> None:
    with pytest.raises(CompressionError, match="expected times above 0 s"):
        replay(None, bad)


def test_a_wall_timer_runs_the_work_once() -> None:
    calls: list[int] = []
    assert wall_timer(lambda: calls.append(1), torch.device("cpu"))() >= 0
    assert calls == [1]


def test_a_wall_timer_waits_for_the_device_on_both_sides(monkeypatch) -> None:
    calls: list[str] = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda _: calls.append("synchronize"))
    wall_timer(lambda: calls.append("work"), torch.device("cuda"))()
    assert calls == ["synchronize", "work", "synchronize"]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_clocks_of_a_gpu_agree() -> None:
    x = torch.randn(4096, 4096, device="cuda")
    y = torch.empty_like(x)

    def work() -> torch.Tensor:
        return torch.matmul(x, x, out=y)

    timers = [wall_timer(work, x.device), cuda_event_timer(work), cuda_graph_timer(work)]
    for timer in timers:
        timer()
    wall, event, graph = (min(timer() for _ in range(20)) for timer in timers)
    assert graph == pytest.approx(event, rel=0.5)
    assert event < 2 * wall
    expected = x.double() @ x.double()
    assert torch.allclose(y.double(), expected, atol=1e-1, rtol=1e-2)  # TF32 at worst


def test_the_clock_has_a_name() -> None:
    assert CLOCK.__name__ == "replay"
