"""What a piece of work takes; of a part that was done before, what it took then."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from benchmarks.machine.memory import PeakMemory


class Meter:
    """Context that measures the seconds and the peak memory of what is done within."""

    def __init__(self, device: torch.device) -> None:
        """Measure the memory of `device`."""
        self.seconds = 0.0
        self._memory, self._started = PeakMemory(device), 0.0

    @property
    def peak_bytes(self) -> int | None:
        """Bytes beyond those at the start, known at the end; None where the system does not tell."""
        return self._memory.peak_bytes

    def __enter__(self) -> "Meter":
        """Start."""
        self._memory.__enter__()
        self._started = time.perf_counter()
        return self

    def __exit__(self, *reason: object) -> None:
        """Stop."""
        self.seconds += time.perf_counter() - self._started
        self._memory.__exit__(*reason)

    @contextmanager
    def instead(self) -> Iterator[Callable[[float, int | None], None]]:
        """Leave out what is done within, and count the seconds and the peak that it is told of.

        >>> with Meter(torch.device("cpu")) as meter, meter.instead() as count:
        ...     count(3600.0, 2**20)  # of a training whose result was kept
        >>> round(meter.seconds)
        3600
        """
        started = time.perf_counter()
        with self._memory.instead() as peaks:

            def count(seconds: float, peak_bytes: int | None) -> None:
                self.seconds += seconds
                peaks.append(peak_bytes or 0)

            yield count
        self.seconds -= time.perf_counter() - started
