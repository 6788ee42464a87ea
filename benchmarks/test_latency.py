"""Prediction, interleaved with the baseline in one run: the ratio, and the time beside it."""

from typing import Any

import pytest
import torch

from benchmarks.deployment import lay_out, prepare_model, require_kernels, skip_without_claim
from benchmarks.facts.record import record
from benchmarks.gate.plugin import KEY
from benchmarks.gathered import NEEDS_QUIET
from benchmarks.machine.cuda_flags import autotune
from benchmarks.session import Minutes, minutes
from benchmarks.techniques import TIMED, Technique
from benchmarks.timing.attempts import measure_speed_up
from benchmarks.timing.batch import repeat_images
from benchmarks.timing.clock import CLOCK, Timer, replay
from benchmarks.timing.cuda_graph import UncapturableError
from benchmarks.timing.prediction import Predict, card_facts, prediction, timer
from benchmarks.timing.speed_up import Pairs, interleave
from benchmarks.workloads import Workload

BUDGET_S = {"digits": 0.5, "digits-quick": 0.1}
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


def measure(
    predictions: list[Predict],
    timing: str,
    device: torch.device,
    workload: Workload,
    step: Minutes,
    **options: Any,
) -> tuple[Pairs, dict[str, Any], bool | None]:
    """Time the two predictions in pairs, again where the first time says little."""
    budget_s, warmup_s = effort(workload, device)

    def attempt(number: int) -> Pairs:
        pair = timers(predictions, timing, device)  # a graph holds its memory until the end
        step.note(f"attempt {number + 1}")
        return interleave(
            *pair, seed=number, budget_s=budget_s, warmup_s=warmup_s, after_pair=step.tick
        )

    return measure_speed_up(attempt, **options)


def history_of(request: pytest.FixtureRequest) -> Any:
    """Return the facts of this test in the history of a gated run, None without one."""
    gate = request.config.stash.get(KEY, None)
    return gate.history.entries.get(request.node.nodeid, {}).get("extra_info") if gate else None


@pytest.mark.with_sweep(TIMED)
@pytest.mark.benchmark(timer=CLOCK)
def test_latency(
    benchmark: Any,
    request: pytest.FixtureRequest,
    technique: Technique,
    artifact_of: Any,
    baseline_model_on: Any,
    data: Any,
    device: torch.device,
    workload: Workload,
    batch_size: int,
    timing: str,
) -> None:
    skip_without_claim(technique, device)
    if not benchmark.enabled:
        pytest.skip(NEEDS_QUIET)
    artifact = artifact_of(technique, device)
    # On the device beforehand: what carries them there is no part of a prediction.
    images = repeat_images(data.validation, batch_size).to(device).inputs(slice(None))
    baseline = baseline_model_on(device)
    own = lay_out(technique, images)
    model, memory = prepare_model(technique, artifact, baseline, own)
    kernels = require_kernels(technique, model, own)
    limit = technique.speed_up_on(device.type, workload.name)
    predictions = [prediction(baseline, images), prediction(model, own)]
    options = {"target": limit, "then": history_of(request)}
    step = minutes(request.config, f"{technique}, batch {batch_size}")
    with autotune(device):
        pairs, facts, met = measure(predictions, timing, device, workload, step, **options)
        smallest = batch_size == min(workload.cuda_batch_sizes)
        facts |= memory | card_facts(predictions[1], images, timing=timing, smallest=smallest)
    replay(benchmark, pairs.technique_s)
    facts |= {"batch_size": batch_size, "timing": timing, "kernels": kernels}
    facts["in_float"] = [*artifact.facts["in_float"], *getattr(model, "stayed", ())]
    record(benchmark, request, target=limit, target_met=met, **{**artifact.facts, **facts})
    assert met is not False, f"{facts['speed_up']:.2f}x of the baseline, at least {limit}x expected"
