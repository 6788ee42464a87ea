"""Bytes of the saved file, which another process has loaded back and evaluated."""

from typing import Any

import pytest
import torch

from benchmarks.facts.record import record
from benchmarks.techniques import CASES, Case
from benchmarks.workloads import Workload
from compression.storage import save


def test_size(
    benchmark: Any,
    request: pytest.FixtureRequest,
    technique: Case,
    compressed: Any,
    verified: Any,
    device: torch.device,
    workload: Workload,
) -> None:
    subject = compressed(technique, device)
    verified(technique, device)
    whole = compressed(CASES[0], device).account["stored_bytes"]
    model = subject.load(device)
    path = subject.path.with_suffix(".again")
    options = {"entropy_coded": technique.entropy_coded}
    benchmark.pedantic(save, args=(model, path), kwargs=options, rounds=1)
    assert path.read_bytes() == subject.path.read_bytes(), "the same model gives the same bytes"
    path.unlink()
    target = technique.targets.get(workload.name)
    limit = target.size if target else None
    stored = subject.account["stored_bytes"]
    met = None if limit is None else stored <= limit * whole
    facts = {**subject.facts, **subject.account, "baseline_stored_bytes": whole}
    record(benchmark, request, metric="size", target=limit, target_met=met, **facts)
    assert met is not False, f"{stored:,} bytes are {stored / whole:.1%} of the baseline's file"
