"""Accuracy of the saved file on all test images, evaluated in another process."""

from typing import Any

import pytest
import torch

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
    accuracy, base = (f["correct"] / f["total"] for f in (own, baseline))
    limit = technique.target(workload.name).drop
    met = None if limit is None else base - accuracy <= limit
    facts = artifact.facts | {key: own[key] for key in ("correct", "total", "correct_images")}
    facts |= {"accuracy": accuracy, "baseline_accuracy": base, "drop": base - accuracy}
    facts["stored_bytes"] = artifact.account["stored_bytes"]
    facts["baseline_stored_bytes"] = artifact_of(TECHNIQUES[0], device).account["stored_bytes"]
    record(benchmark, request, metric="accuracy", target=limit, target_met=met, **facts)
    assert met is not False, (
        f"a drop of {base - accuracy:.2%} to {accuracy:.2%}, at most {limit:.2%}"
    )
