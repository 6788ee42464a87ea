"""Kernels that a prediction launches, counted among what torch's profiler reports."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from benchmarks.machine import launches
from benchmarks.machine.launches import count_kernels, kernels_among
from benchmarks.machine.memory import allocated_bytes, peak_memory_bytes

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def event(name: str, device: str = "CUDA", *, annotation: bool = False) -> Any:
    where = SimpleNamespace(name=device)
    return SimpleNamespace(name=name, device_type=where, is_user_annotation=annotation)


EVENTS = [
    event("cudaLaunchKernel", "CPU"),
    event("void implicit_convolve_sgemm<float>"),
    event("cudaLaunchKernel", "CPU"),
    event("void vectorized_elementwise_kernel<4>"),
    event("Memcpy DtoD (Device -> Device)"),
    event("Memset (Device)"),
    event("my range", annotation=True),
]


def test_kernels_are_counted_and_neither_launches_nor_copies() -> None:
    assert kernels_among(EVENTS) == 2


@pytest.mark.parametrize(("events", "expected"), [(EVENTS, 2), (EVENTS[:1], None)])
def test_the_work_runs_once_within_the_profile(
    events: list[Any], expected: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []

    class Profile:
        def __init__(self, **_: Any) -> None: ...

        def __enter__(self) -> "Profile":
            calls.append("start")
            return self

        def __exit__(self, *_: object) -> None:
            calls.append("stop")

        def events(self) -> list[Any]:
            return events

    monkeypatch.setattr(launches, "profile", Profile)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: calls.append("synchronize"))
    assert count_kernels(lambda: calls.append("work")) == expected
    assert calls == ["synchronize", "start", "work", "synchronize", "stop"]


def test_memory_is_that_of_the_device_garbage_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    class Cycle:
        """Holds what counts until it is collected."""

        def __init__(self) -> None:
            self.me, held["bytes"] = self, 100

        def __del__(self) -> None:
            held["bytes"] = 0

    held: dict[str, int] = {"bytes": 0}
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _: 7 + held["bytes"])
    Cycle()
    assert allocated_bytes(torch.device("cuda")) == 7
    assert allocated_bytes(torch.device("cpu")) == 0


def test_a_predictions_peak_is_beyond_what_stood_before(monkeypatch: pytest.MonkeyPatch) -> None:
    state = {"now": 1000, "peak": 5000}

    def work() -> None:
        state["peak"] = max(state["peak"], state["now"] + 64)

    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _: state["now"])
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda _: state["peak"])
    monkeypatch.setattr(
        torch.cuda, "reset_peak_memory_stats", lambda _: state.update(peak=state["now"])
    )
    assert peak_memory_bytes(work, torch.device("cuda")) == 64


@pytest.mark.gpu
@needs_cuda
def test_two_operations_of_a_gpu_are_two_kernels() -> None:
    x = torch.randn(1000, device="cuda")
    found = count_kernels(lambda: x.add_(1).mul_(2))
    if found is None:
        pytest.skip("torch's profiler may not trace this GPU")
    assert found == 2


@pytest.mark.gpu
@needs_cuda
def test_a_gpus_peak_is_what_the_work_allocates() -> None:
    x = torch.ones(2**20, device="cuda")
    before = allocated_bytes(x.device)
    assert peak_memory_bytes(lambda: x + 1, x.device) == 4 * 2**20
    assert allocated_bytes(x.device) == before
