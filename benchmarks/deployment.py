"""A technique's file made ready to predict, and the kernels that its claim of speed rests on."""

from functools import lru_cache

import pytest
import torch
from torch import Tensor, nn

from benchmarks.artifact import Artifact
from benchmarks.machine.kernels import kernels_of
from benchmarks.machine.memory import allocated_bytes
from benchmarks.techniques import Technique
from benchmarks.timing.prediction import prediction


def prepare_model(
    technique: Technique, artifact: Artifact, baseline: nn.Module, images: Tensor
) -> tuple[nn.Module, dict[str, int]]:
    """Return the model that is timed, and on a GPU the bytes that it holds there."""
    if images.device.type != "cuda":
        return technique.prepare(_load(artifact, images.device), images), {}
    # The libraries allocate their own workspaces first: they are no part of any model.
    prediction(baseline, images)()
    before = allocated_bytes(images.device)
    model = artifact.load(images.device)
    if technique.channels_last:
        model = model.to(memory_format=torch.channels_last)
    model = technique.prepare(model, images)
    return model, {"model_memory_bytes": allocated_bytes(images.device) - before}


@lru_cache(maxsize=1)  # for the next batch size
def _load(artifact: Artifact, device: torch.device) -> nn.Module:
    return artifact.load(device)


def lay_out(technique: Technique, images: Tensor) -> Tensor:
    """Return inputs as a technique takes them: images (N, C, H, W) may lie channels last."""
    if technique.channels_last and images.ndim == 4:
        return images.contiguous(memory_format=torch.channels_last)
    return images.contiguous()


def skip_without_claim(technique: Technique, device: torch.device) -> None:
    """Skip the test of a latency that the technique does not claim on a device."""
    kind = technique.claim_on(device.type).kind
    if kind == "simulated":
        pytest.skip(f"{technique} is simulated on {device.type}: it has no latency to claim")
    if kind == "size only":
        pytest.skip(f"{technique} is smaller only on {device.type}: no kernel gains by it")


def require_kernels(technique: Technique, model: nn.Module, images: Tensor) -> dict[str, int]:
    """Return how often the kernels ran that the claim rests on; empty where it rests on none.

    Where none of its sets ran whole, the test fails, or is skipped if the technique is smaller only.
    """
    claim = technique.claim_on(images.device.type)
    if not claim.kernels:
        return {}
    ran = kernels_of(model, images)
    seen = next((names for names in claim.kernels if all(ran[n] for n in names)), ())
    if not seen and claim.otherwise == "size only":
        pytest.skip(f"{technique} is smaller only: none of {claim.kernels} ran")
    assert seen, f"none of {claim.kernels} ran"
    return {name: ran[name] for name in seen}
