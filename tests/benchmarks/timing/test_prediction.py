"""What a prediction on a GPU asks of the card, which is none here: each measure is a stand-in."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from benchmarks.timing import prediction

CUDA = torch.device("cuda")


def eager() -> Any:
    return "eager"


class Images:
    """As much of a batch as the measures ask."""

    device = CUDA

    def __len__(self) -> int:
        return 128


@pytest.fixture
def ask(monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    def energy(work: Callable[[], object], device: torch.device, *, images: int) -> Any:
        assert device == CUDA
        return {"energy_of": work(), "images": images}

    captured = SimpleNamespace(replay=lambda: "graph")
    monkeypatch.setattr(prediction, "cuda_flags", lambda: {"tf32_matmul": False})
    monkeypatch.setattr(prediction, "peak_memory_bytes", lambda *_: 64)
    monkeypatch.setattr(prediction, "count_kernels", lambda _: 62)
    monkeypatch.setattr(prediction, "capture", lambda _: captured)
    monkeypatch.setattr(prediction, "energy_facts", energy)

    def facts(timing: str, smallest: bool, obstacle: str | None) -> dict[str, Any]:
        monkeypatch.setattr(prediction, "obstacle", lambda _: obstacle)
        found = prediction.card_facts(eager, Images(), timing=timing, smallest=smallest)
        assert found.pop("tf32_matmul") is False
        assert found.pop("prediction_peak_memory_bytes") == 64
        return found

    return facts


@pytest.mark.parametrize(
    ("timing", "smallest", "obstacle", "expected"),
    [
        ("wall", True, None, {}),
        ("event", True, None, {"cuda_kernels": 62}),
        ("event", False, None, {}),
        ("event", False, "it waits", {"energy_of": "eager", "images": 128}),
        ("graph", True, None, {"energy_of": "graph", "images": 128}),
    ],
)
def test_each_measure_is_taken_in_one_timing_of_a_batch(
    ask: Callable[..., dict[str, Any]],
    timing: str,
    smallest: bool,
    obstacle: str | None,
    expected: dict[str, Any],
) -> None:
    assert ask(timing, smallest, obstacle) == expected


def test_a_cpu_row_takes_none_of_them() -> None:
    images = torch.zeros(2, 3)
    assert prediction.card_facts(images.sum, images, timing="wall", smallest=True) == {}


@pytest.mark.parametrize(
    ("replayed", "same"),
    [([1.0, -2.01], True), ([1.0, -2.1], False), ([1.0, float("nan")], False)],
)
def test_a_graph_that_answers_otherwise_is_not_timed(
    replayed: list[float], same: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    captured = SimpleNamespace(replay=lambda: None, replay_output=lambda: torch.tensor(replayed))
    monkeypatch.setattr(prediction, "capture", lambda _: captured)
    monkeypatch.setattr(prediction, "cuda_event_timer", lambda _: lambda: 1.0)

    def predict() -> torch.Tensor:
        return torch.tensor([1.0, -2.0])

    if same:
        assert prediction.graph_timer(predict)() == 1.0
    else:
        with pytest.raises(AssertionError, match="a replay differs by"):
            prediction.graph_timer(predict)
