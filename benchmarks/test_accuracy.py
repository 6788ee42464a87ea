"""Accuracy, or the score, of the saved file on all test images, evaluated in another process."""

from typing import Any

import pytest
import torch

from benchmarks.baseline.judged import beside_baseline
from benchmarks.facts.record import record
from benchmarks.techniques import SWEEP, TECHNIQUES, Technique
from benchmarks.timing.clock import CLOCK, replay
from benchmarks.workloads import Workload


@pytest.mark.with_sweep(SWEEP)
@pytest.mark.benchmark(timer=CLOCK)
def test_accuracy(
    benchmark: Any,
    request: pytest.FixtureRequest,
    technique: Technique,
    artifact_of: Any,
    evaluation_of: Any,
    device: torch.device,
    workload: Workload,
) -> None:
    artifact = artifact_of(technique, device)
    own = evaluation_of(technique, device)
    baseline = evaluation_of(TECHNIQUES[0], device)
    replay(benchmark, [own["seconds"]])
    found, drop = beside_baseline(own, baseline)
    limit = technique.target(workload.name).drop
    met = None if limit is None else drop <= limit
    facts = artifact.facts | found
    facts["stored_bytes"] = artifact.account["stored_bytes"]
    facts["baseline_stored_bytes"] = artifact_of(TECHNIQUES[0], device).account["stored_bytes"]
    metric = facts.pop("metric")
    record(benchmark, request, metric=metric, target=limit, target_met=met, **facts)
    score = facts.get("accuracy", facts.get("score"))
    assert met is not False, f"a drop of {drop:.2%} to {score:.2%}, at most {limit:.2%}"
