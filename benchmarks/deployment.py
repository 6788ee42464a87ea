"""A case's file made ready to predict, and the kernels that a claim of speed rests on."""

from functools import lru_cache

import pytest
import torch
from torch import Tensor, nn

from benchmarks.artifact import Compressed
from benchmarks.machine.kernels import kernels_of
from benchmarks.machine.memory import allocated_bytes
from benchmarks.techniques import Case
from benchmarks.timing.prediction import prediction


def deployed(
    technique: Case, subject: Compressed, baseline: nn.Module, images: Tensor
) -> tuple[nn.Module, dict[str, int]]:
    """Return the model that is timed, and on a GPU the bytes that it holds there."""
    if images.device.type != "cuda":
        return technique.prepare(_loaded(subject, images.device), images), {}
    # The libraries' own workspaces come first: no model is to be blamed for them.
    prediction(baseline, images)()
    before = allocated_bytes(images.device)
    model = subject.load(images.device)
    if technique.channels_last:
        model = model.to(memory_format=torch.channels_last)
    model = technique.prepare(model, images)
    return model, {"model_memory_bytes": allocated_bytes(images.device) - before}


@lru_cache(maxsize=1)  # for the next batch size
def _loaded(subject: Compressed, device: torch.device) -> nn.Module:
    return subject.load(device)


def memory_format(technique: Case) -> torch.memory_format:
    """Return how a case wants its weights and images to lie."""
    return torch.channels_last if technique.channels_last else torch.contiguous_format


def kernels_seen(technique: Case, model: nn.Module, images: Tensor) -> dict[str, int]:
    """Return how often the kernels ran that a claim rests on; a technique without any claims none."""
    if not technique.kernels:
        return {}
    ran = kernels_of(model, images)
    seen = next((names for names in technique.kernels if all(ran[n] for n in names)), ())
    if not seen and technique.size_only_without:
        pytest.skip(f"{technique} is smaller only: none of {technique.kernels} ran")
    assert seen, f"none of {technique.kernels} ran"
    return {name: ran[name] for name in seen}
