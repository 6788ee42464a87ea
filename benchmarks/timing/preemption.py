"""How long the threads of this process waited for a core while they were ready to run.

Another process stretches long predictions and not short ones, which fit between two time slices. A
ratio of the two then says what the machine did, not what the code does. Linux counts the wait of each
thread, also that of a pool's thread for which the others spin.
"""

import os
import resource
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

TASKS = Path("/proc/self/task")


@dataclass(frozen=True, slots=True)
class Waits:
    """Counts until now: the wait of each thread, where the system counts it.

    Elsewhere: the involuntary context switches of the process, and the seconds in which this thread
    did not run.
    """

    delays_s: tuple[float, ...]
    switches: int
    idle_s: float


@contextmanager
def count_waits() -> Iterator[Callable[[], Waits]]:
    """Yield a function that reads the waits of the threads that exist now; it takes microseconds."""
    files = _files()

    def read() -> Waits:
        delays_s = tuple(_delay_s(file) for file in files)
        if delays_s:
            return Waits(delays_s, 0, 0.0)
        switches = resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw
        return Waits((), switches, time.perf_counter() - time.thread_time())

    try:
        yield read
    finally:
        for file in files:
            os.close(file)


def wait_s(before: Waits, after: Waits) -> float:
    """Return the longest wait of any thread between two readings."""
    if after.delays_s:
        return max(b - a for a, b in zip(before.delays_s, after.delays_s, strict=True))
    # Without an involuntary switch it waited by choice: for the device, or for the pool.
    return after.idle_s - before.idle_s if after.switches > before.switches else 0.0


def _files() -> list[int]:
    files = []
    try:
        for task in TASKS.iterdir():
            file = os.open(task / "schedstat", os.O_RDONLY)
            files.append(file)
            os.pread(file, 64, 0)
    except OSError:  # another system, or a kernel that does not count
        for file in files:
            os.close(file)
        return []
    return files


def _delay_s(file: int) -> float:
    """Return the second of three numbers: run, waited (ns), and how often; 0 of a thread that ended."""
    try:
        return int(os.pread(file, 64, 0).split()[1]) / 1e9
    except (OSError, IndexError, ValueError):
        return 0.0
