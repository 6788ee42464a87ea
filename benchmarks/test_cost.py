"""Seconds and peak memory of the compression itself."""

from typing import Any

import pytest
import torch

from benchmarks.facts.record import record
from benchmarks.techniques import Technique
from benchmarks.timing.clock import CLOCK, replay


@pytest.mark.benchmark(timer=CLOCK)
def test_cost(
    benchmark: Any,
    request: pytest.FixtureRequest,
    technique: Technique,
    artifact_of: Any,
    device: torch.device,
) -> None:
    artifact = artifact_of(technique, device)
    replay(benchmark, [artifact.seconds])
    cost = {"seconds": artifact.seconds, "peak_memory_bytes": artifact.peak_memory_bytes}
    facts = {**artifact.facts, **cost}
    record(benchmark, request, metric="cost", target=None, target_met=None, **facts)
