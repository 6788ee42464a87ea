"""Prediction, interleaved with the baseline in one run: the ratio, and the time beside it."""

from typing import Any

import pytest
import torch

from benchmarks.deployment import deployed, kernels_seen, memory_format
from benchmarks.facts.record import record
from benchmarks.gate.plugin import KEY
from benchmarks.machine.cuda_flags import autotuned
from benchmarks.techniques import Case
from benchmarks.timing.attempts import measured
from benchmarks.timing.batch import cycled
from benchmarks.timing.clock import CLOCK, Timer, replay
from benchmarks.timing.cuda_graph import UncapturableError
from benchmarks.timing.prediction import Predict, card_facts, prediction, timer
from benchmarks.timing.speed_up import Pairs, interleave
from benchmarks.workloads import Workload

BUDGET_S = {"digits": 0.5}
DEFAULT_BUDGET_S = 10.0
CUDA_BUDGET_S = 1.2
"""There 80 pairs of most rows take less; 23 techniques have nine rows each."""
CUDA_WARMUP_S = 0.1
"""In which the clocks of a card that slept rise."""


def timers(predictions: list[Predict], timing: str, device: torch.device) -> list[Timer]:
    try:
        return [timer(predict, timing, device) for predict in predictions]
    except UncapturableError as error:
        pytest.skip(str(error))


def effort(workload: Workload, device: torch.device) -> tuple[float, float]:
    """Return the seconds of measuring and of warming up."""
    if device.type == "cuda":
        return CUDA_BUDGET_S, CUDA_WARMUP_S
    return BUDGET_S.get(workload.name, DEFAULT_BUDGET_S), 0.0


@pytest.mark.benchmark(timer=CLOCK)
def test_latency(
    benchmark: Any,
    request: pytest.FixtureRequest,
    technique: Case,
    compressed: Any,
    stored_baseline: Any,
    data: Any,
    device: torch.device,
    workload: Workload,
    batch_size: int,
    timing: str,
) -> None:
    if device.type in technique.simulated_on:
        pytest.skip(f"{technique} is simulated on {device.type}: it has no latency to claim")
    if device.type in technique.size_only_on:
        pytest.skip(f"{technique} is smaller only on {device.type}: no kernel gains by it")
    if not benchmark.enabled:
        pytest.skip("latency needs the benchmarks enabled: run with -n 0")
    subject = compressed(technique, device)
    # On the device beforehand: what carries them there is no part of a prediction.
    images = cycled(data.validation, batch_size).to(device).inputs(slice(None))
    baseline = stored_baseline(device)
    own = images.contiguous(memory_format=memory_format(technique))
    model, held = deployed(technique, subject, baseline, own)
    kernels = kernels_seen(technique, model, own)
    target = technique.targets.get(workload.name)
    limit = target.speed_up if target else None
    gate = request.config.stash.get(KEY, None)
    then = gate.history.entries.get(request.node.nodeid, {}).get("extra_info") if gate else None
    budget_s, warmup_s = effort(workload, device)
    predictions = [prediction(baseline, images), prediction(model, own)]
    with autotuned(device):

        def measure(attempt: int) -> Pairs:
            timed = timers(predictions, timing, device)  # a graph holds its memory until the end
            return interleave(*timed, seed=attempt, budget_s=budget_s, warmup_s=warmup_s)

        pairs, facts, met = measured(measure, target=limit, then=then)
        smallest = batch_size == min(workload.cuda_batch_sizes)
        facts |= held | card_facts(predictions[1], images, timing=timing, smallest=smallest)
    replay(benchmark, pairs.technique_s)
    facts |= {"batch_size": batch_size, "timing": timing, "kernels": kernels}
    facts["in_float"] = [*subject.facts["in_float"], *getattr(model, "stayed", ())]
    record(benchmark, request, target=limit, target_met=met, **{**subject.facts, **facts})
    assert met is not False, f"{facts['speed_up']:.2f}x of the baseline, at least {limit}x expected"
