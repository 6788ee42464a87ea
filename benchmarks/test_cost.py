"""Seconds and peak memory of the compression itself."""

from typing import Any

import pytest
import torch

from benchmarks.facts.record import record
from benchmarks.techniques import Case
from benchmarks.timing.clock import CLOCK, replay


@pytest.mark.benchmark(timer=CLOCK)
def test_cost(
    benchmark: Any,
    request: pytest.FixtureRequest,
    technique: Case,
    compressed: Any,
    device: torch.device,
) -> None:
    subject = compressed(technique, device)
    replay(benchmark, [subject.seconds])
    cost = {"seconds": subject.seconds, "peak_memory_bytes": subject.peak_memory_bytes}
    facts = {**subject.facts, **cost}
    record(benchmark, request, metric="cost", target=None, target_met=None, **facts)
