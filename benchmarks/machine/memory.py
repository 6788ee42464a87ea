"""Peak memory of a piece of work, and what stays allocated on a GPU."""

import ctypes
import gc
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class PeakMemory:
    """Context that measures the bytes beyond those at its start: device memory, or resident memory.

    `peak_bytes` stays None where the system does not tell (resident memory outside Linux).
    """

    def __init__(self, device: torch.device) -> None:
        """Measure on `device`."""
        self.device, self._start = device, 0
        self.peak_bytes: int | None = None

    def __enter__(self) -> "PeakMemory":
        """Reset the high-water mark."""
        self._reset()
        self._start = self._held()
        return self

    def __exit__(self, *_: object) -> None:
        """Read the high-water mark."""
        self._read()

    @contextmanager
    def instead(self) -> Iterator[list[int]]:
        """Leave out what is done within: each peak that the list gets counts as if it stood there.

        A peak is what work took beyond the bytes in use before it. Another PeakMemory may measure
        within.
        """
        self._read()
        held, peaks = self._held() - self._start, list[int]()
        yield peaks
        self._reset()
        if self.peak_bytes is not None:
            self.peak_bytes = max([self.peak_bytes, *(held + peak for peak in peaks)])

    def _reset(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        elif _CLEAR.exists():
            _CLEAR.write_text("5")  # proc(5): resets the peak resident set size

    def _held(self) -> int:
        if self.device.type == "cuda":
            return torch.cuda.memory_allocated(self.device)
        return _resident_bytes("VmRSS") if _CLEAR.exists() else 0

    def _read(self) -> None:
        if self.device.type == "cuda":
            most = torch.cuda.max_memory_allocated(self.device)
        elif _CLEAR.exists():
            most = _resident_bytes("VmHWM")
        else:
            return
        self.peak_bytes = max(self.peak_bytes or 0, most - self._start)


def peak_memory_bytes(work: Callable[[], object], device: torch.device) -> int | None:
    """Return the peak bytes of one run of `work`, beyond those in use before it."""
    with PeakMemory(device) as memory:
        work()
    return memory.peak_bytes


def allocated_bytes(device: torch.device) -> int:
    """Return the bytes that live tensors hold on a GPU, garbage collected first; 0 on a CPU."""
    if device.type != "cuda":
        return 0
    gc.collect()  # a traced network is a cycle, and holds its weights until then
    return torch.cuda.memory_allocated(device)


def return_freed() -> None:
    """Give memory that was freed back to the system, where the C library can: it counts as resident."""
    with suppress(OSError, AttributeError):  # glibc's alone
        ctypes.CDLL(None).malloc_trim(0)


def _resident_bytes(field: str) -> int:
    match = re.search(rf"^{field}:\s+(\d+) kB", _STATUS.read_text(), re.MULTILINE)
    return int(match[1]) * 1024 if match else 0
