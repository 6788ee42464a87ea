"""Bytes of the saved file, which another process has loaded back and evaluated."""

from typing import Any

import pytest
import torch

from benchmarks.facts.record import record
from benchmarks.techniques import TECHNIQUES, TIMED, Technique
from benchmarks.workloads import Workload
from compression.storage import save


@pytest.mark.with_sweep(TIMED)
def test_size(
    benchmark: Any,
    request: pytest.FixtureRequest,
    technique: Technique,
    artifact_of: Any,
    evaluation_of: Any,
    device: torch.device,
    workload: Workload,
) -> None:
    artifact = artifact_of(technique, device)
    evaluation_of(technique, device)
    whole = artifact_of(TECHNIQUES[0], device).account["stored_bytes"]
    model = artifact.load(device)
    path = artifact.path.with_suffix(".again")
    options = {"entropy_coded": technique.entropy_coded}
    benchmark.pedantic(save, args=(model, path), kwargs=options, rounds=1)
    assert path.read_bytes() == artifact.path.read_bytes(), "the same model gives the same bytes"
    path.unlink()
    limit = technique.target(workload.name).size
    stored = artifact.account["stored_bytes"]
    met = None if limit is None else stored <= limit * whole
    facts = {**artifact.facts, **artifact.account, "baseline_stored_bytes": whole}
    record(benchmark, request, metric="size", target=limit, target_met=met, **facts)
    assert met is not False, f"{stored:,} bytes are {stored / whole:.1%} of the baseline's file"
