"""What a latency row on a GPU asks of the card, which is none here: each measure is a stand-in."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from benchmarks import deployment, test_latency
from benchmarks.technique import SIMULATED, SIZE_ONLY, Claim, Technique
from benchmarks.timing import prediction
from benchmarks.timing.cuda_graph import UncapturableError
from benchmarks.workloads import CIFAR10, DIGITS

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


def test_a_model_that_no_graph_can_hold_is_skipped_with_its_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refused(work: object) -> None:
        raise UncapturableError("cannot be captured in a CUDA graph: it waits for the device")

    monkeypatch.setattr(prediction, "capture", refused)
    with pytest.raises(pytest.skip.Exception, match="captured in a CUDA graph: it waits for the"):
        test_latency.timers([torch.zeros(1).sum] * 2, "graph", CUDA)


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


def test_a_gpus_rows_are_short_and_a_cpus_as_long_as_ever() -> None:
    cpu = torch.device("cpu")
    assert test_latency.effort(DIGITS, cpu) == (0.5, 0.0)
    assert test_latency.effort(CIFAR10, cpu) == (10.0, 0.0)
    assert sum(test_latency.effort(CIFAR10, CUDA)) < 1.5


def test_a_model_holds_what_loading_it_left_allocated(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    allocated = iter([1000, 1400])

    def prepare(model: torch.nn.Module, _: Images) -> torch.nn.Module:
        order.append("prepare")
        return model

    def predict(_: Images) -> None:
        order.append("baseline")

    monkeypatch.setattr(deployment, "allocated_bytes", lambda _: next(allocated))
    model = torch.nn.Identity()
    artifact = SimpleNamespace(load=lambda _: model)
    technique = Technique("made-up", lambda b: b.model, prepare=prepare)
    found = deployment.prepare_model(technique, artifact, predict, Images())
    assert found == (model, {"model_memory_bytes": 400})
    assert order == ["baseline", "prepare"], "libraries allocate their workspaces before"


@pytest.mark.parametrize("needed", [False, True])
def test_a_row_whose_kernels_did_not_run_fails_or_is_smaller_only(needed, monkeypatch) -> None:
    monkeypatch.setattr(deployment, "kernels_of", lambda *_: Counter({"dense": 3}))
    otherwise = "failure" if needed else "size only"
    claim = Claim(kernels=(("a",), ("b",)), otherwise=otherwise)
    technique = Technique("sparse", lambda b: b.model, claims={"cpu": claim})
    with pytest.raises(
        AssertionError if needed else pytest.skip.Exception, match=r"none of .* ran"
    ):
        deployment.require_kernels(technique, torch.nn.Identity(), torch.ones(1))
    known = replace(claim, kernels=(("dense", "a"), ("dense",)))
    ran = replace(technique, claims={"cpu": known})
    assert deployment.require_kernels(ran, torch.nn.Identity(), torch.ones(1)) == {"dense": 3}


@pytest.mark.parametrize(
    ("claim", "said"),
    [
        (SIMULATED, "is simulated on cpu: it has no"),
        (SIZE_ONLY, "is smaller only on cpu: no kernel"),
    ],
    ids=["simulated", "size only"],
)
def test_a_row_without_a_latency_to_claim_is_skipped_with_its_reason(claim, said) -> None:
    technique = Technique("made-up", lambda b: b.model, claims={"cpu": claim})
    with pytest.raises(pytest.skip.Exception, match=f"made-up {said}"):
        deployment.skip_without_claim(technique, torch.device("cpu"))
    deployment.skip_without_claim(technique, CUDA)
