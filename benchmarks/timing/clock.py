"""Clocks: timers of work, and measured times replayed into pytest-benchmark's own stats."""

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from benchmarks.timing.cuda_graph import capture
from compression.errors import CompressionError

Timer = Callable[[], float]
"""Runs the work once and returns its seconds."""


class ReplayClock:
    """A timer for pytest-benchmark that moves only by `advance`."""

    __name__ = "replay"  # pytest-benchmark prints and saves a timer's name

    def __init__(self) -> None:
        """Start at 0 seconds."""
        self.now_s = 0.0

    def __call__(self) -> float:
        """Return the time in seconds."""
        return self.now_s

    def advance(self, seconds: float) -> None:
        """Let `seconds` pass."""
        self.now_s += seconds


CLOCK = ReplayClock()
"""For `@pytest.mark.benchmark(timer=CLOCK)`: the marker is read before a test could make its own."""


def replay(benchmark: Any, times_s: Sequence[float]) -> None:
    """Enter measured times as the rounds of `benchmark`, whose marker's timer is CLOCK.

    One time is enough. Disabled benchmarks hold no stats, and nothing happens. CompressionError for
    times that are no durations, and where the marker is missing: pytest-benchmark would time the
    replay itself, and save nanoseconds.
    """
    if not times_s or not all(0 < time_s < math.inf for time_s in times_s):
        raise CompressionError(f"expected times above 0 s to replay, found {list(times_s)[:5]}")
    # From 0, so that the differences are the times to the last bit.
    times = iter(times_s)

    def advance() -> None:
        CLOCK.now_s = next(times, 0.0)

    def rewind() -> None:
        CLOCK.now_s = 0.0

    benchmark.replayed = [float(seconds) for seconds in times_s]  # where it is disabled
    benchmark.pedantic(advance, setup=rewind, rounds=len(times_s))
    if benchmark.enabled and benchmark.stats.stats.data != list(times_s):
        benchmark.has_error = True  # not to be saved
        raise CompressionError("mark the test with @pytest.mark.benchmark(timer=CLOCK) to replay")


def wall_timer(work: Callable[[], object], device: torch.device) -> Timer:
    """Time `work` by the wall clock, until the device has finished it."""

    def synchronize() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    def run() -> float:
        synchronize()
        started = time.perf_counter()
        work()
        synchronize()
        return time.perf_counter() - started

    return run


def cuda_event_timer(work: Callable[[], object]) -> Timer:
    """Time `work` by events on the stream in use: from its first kernel to the end of its last.

    A device that waits for launches waits within that time.
    """

    def run() -> float:
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        work()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / 1000  # events count milliseconds

    return run


def cuda_graph_timer(work: Callable[[], Tensor]) -> Timer:
    """Capture `work` in a CUDA graph and time its replays: no launch overhead between kernels.

    The timer keeps the graph alive. UncapturableError for work that no graph can hold.
    """
    return cuda_event_timer(capture(work).replay)
