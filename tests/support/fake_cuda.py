"""Stands in for torch.cuda's streams and graphs, and writes down what was asked of them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch

from benchmarks.timing import cuda_graph as graph
from benchmarks.timing.cuda_graph import Work


class Stream:
    """A stream by name."""

    def __init__(self, name: str, log: list[str]) -> None:
        self.name, self.log = name, log

    def wait_stream(self, other: "Stream") -> None:
        self.log.append(f"{self.name} waits for {other.name}")


class FakeCuda:
    """torch.cuda with one device; `log` holds what happened, `current` the stream in use."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.log: list[str] = []
        self.outside, self.side = Stream("outside", self.log), Stream("side", self.log)
        self.current, self.mode, self.capturing = self.outside, 0, False
        self.on_replay: Callable[[], object] = lambda: None
        graph._side_stream.cache_clear()
        for name, fake in {
            "Stream": lambda: self.side,
            "current_stream": lambda: self.current,
            "current_device": lambda: 0,
            "stream": self.stream,
            "graph": self.graph,
            "CUDAGraph": lambda: self,
            "get_sync_debug_mode": lambda: self.mode,
            "set_sync_debug_mode": self.set_mode,
        }.items():
            patch.setattr(torch.cuda, name, fake)

    def set_mode(self, mode: str | int) -> None:
        self.mode = {"default": 0, "warn": 1, "error": 2}[mode] if isinstance(mode, str) else mode

    @contextmanager
    def stream(self, stream: Stream) -> Iterator[None]:
        before, self.current = self.current, stream
        try:
            yield
        finally:
            self.current = before

    @contextmanager
    def graph(self, _: "FakeCuda", stream: Stream) -> Iterator[None]:
        before, self.current, self.capturing = self.current, stream, True
        self.log.append(f"capture on {stream.name}")
        try:
            yield
        except RuntimeError as error:  # as torch, whose end of a capture leaves its stream in use
            raise RuntimeError("operation failed due to a previous error in a capture") from error
        finally:
            self.capturing = False
        self.current = before

    def replay(self) -> None:
        self.log.append(f"replay on {self.current.name}")
        self.on_replay()

    def log_work(self, work: Work) -> Work:
        """Return `work`, each run of which is logged."""

        def run() -> torch.Tensor:
            self.log.append(f"work on {self.current.name}{', refusing' * (self.mode == 2)}")
            return work()

        return run

    def synchronize(self) -> None:
        """Wait for the device, as `.item()` does: refused in that mode of torch, and in a capture."""
        if self.mode == 2:
            raise RuntimeError("called a synchronizing CUDA operation")
        if self.capturing:
            raise RuntimeError("operation not permitted when stream is capturing")


# Lets --device cuda through; afterwards torch says that there is no GPU.
LET_THROUGH = """
import pytest
import torch
absent = torch.cuda.is_available
torch.cuda.get_device_name = lambda *_: "a card"

@pytest.hookimpl(tryfirst=True)
def pytest_configure():
    torch.cuda.is_available = lambda: True

@pytest.hookimpl(tryfirst=True)
def pytest_sessionstart():
    torch.cuda.is_available = absent
"""
