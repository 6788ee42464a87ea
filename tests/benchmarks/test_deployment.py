"""A row's model made ready, its claim, its kernels, and how long it is timed."""

from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from benchmarks import deployment, test_latency
from benchmarks.technique import SIMULATED, SIZE_ONLY, Claim, Technique
from benchmarks.timing import prediction
from benchmarks.timing.cuda_graph import UncapturableError
from benchmarks.workloads import CIFAR10, DIGITS

CUDA = torch.device("cuda")


def test_a_model_that_no_graph_can_hold_is_skipped_with_its_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refused(work: object) -> None:
        raise UncapturableError("cannot be captured in a CUDA graph: it waits for the device")

    monkeypatch.setattr(prediction, "capture", refused)
    with pytest.raises(pytest.skip.Exception, match="captured in a CUDA graph: it waits for the"):
        test_latency.timers([torch.zeros(1).sum] * 2, "graph", CUDA)


def test_a_gpus_rows_are_short_and_a_cpus_as_long_as_ever() -> None:
    cpu = torch.device("cpu")
    assert test_latency.effort(DIGITS, cpu) == (0.5, 0.0)
    assert test_latency.effort(CIFAR10, cpu) == (10.0, 0.0)
    assert sum(test_latency.effort(CIFAR10, CUDA)) < 1.5


def test_a_model_holds_what_loading_it_left_allocated(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    allocated = iter([1000, 1400])

    def prepare(model: torch.nn.Module, _: object) -> torch.nn.Module:
        order.append("prepare")
        return model

    def predict(_: object) -> None:
        order.append("baseline")

    monkeypatch.setattr(deployment, "allocated_bytes", lambda _: next(allocated))
    model = torch.nn.Identity()
    artifact = SimpleNamespace(load=lambda _: model)
    technique = Technique("made-up", lambda b: b.model, prepare=prepare)
    found = deployment.prepare_model(technique, artifact, predict, SimpleNamespace(device=CUDA))
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
