"""Peak memory of a piece of work, and what stays allocated on a GPU."""

import gc
import re
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

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
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
            self._start = torch.cuda.memory_allocated(self.device)
        elif _CLEAR.exists():
            _CLEAR.write_text("5")  # proc(5): resets the peak resident set size
            self._start = _resident_bytes("VmRSS")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Read the high-water mark."""
        if self.device.type == "cuda":
            self.peak_bytes = torch.cuda.max_memory_allocated(self.device) - self._start
        elif _CLEAR.exists():
            self.peak_bytes = max(0, _resident_bytes("VmHWM") - self._start)


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


def _resident_bytes(field: str) -> int:
    match = re.search(rf"^{field}:\s+(\d+) kB", _STATUS.read_text(), re.MULTILINE)
    return int(match[1]) * 1024 if match else 0
