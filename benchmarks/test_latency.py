"""Prediction, interleaved with the baseline in one run: the ratio, and the time beside it."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from benchmarks.compressed import Compressed
from benchmarks.harness.batch import cycled
from benchmarks.harness.clock import CLOCK, Timer, cuda_event_timer, replay, wall_timer
from benchmarks.harness.energy import energy_facts
from benchmarks.harness.flags import autotuned, cuda_flags
from benchmarks.harness.gate import KEY
from benchmarks.harness.graph import UncapturableError, capture, obstacle
from benchmarks.harness.interleave import interleave, latency_facts
from benchmarks.harness.judge import comparable, speed_up_regression
from benchmarks.harness.kernels import kernels_of
from benchmarks.harness.launches import count_kernels
from benchmarks.harness.memory import allocated_bytes, peak_memory_bytes
from benchmarks.harness.results import record
from benchmarks.techniques import Case
from benchmarks.workloads import Workload

BUDGET_S = {"digits": 0.6}
DEFAULT_BUDGET_S = 10.0
CUDA_BUDGET_S = 1.2
"""There 80 pairs of most rows take less; 23 techniques have nine rows each."""
CUDA_WARMUP_S = 0.1
"""In which the clocks of a card that slept rise."""

TOLERANCES = {
    "graph": (0.02, "the same kernels: a few roundings of bfloat16 (2^-8) in sums of free order"),
}
"""Of the eager prediction's largest output, and its reason."""

Predict = Callable[[], Tensor]


def prediction(model: nn.Module, images: Tensor) -> Predict:
    def predict() -> Tensor:
        with torch.inference_mode():
            logits: Tensor = model(images)
            return logits

    return predict


def timer(predict: Predict, timing: str, device: torch.device) -> Timer:
    if timing == "event":
        return cuda_event_timer(predict)
    if timing == "graph":
        return graph_timer(predict)
    return wall_timer(predict, device)


def graph_timer(predict: Predict) -> Timer:
    captured = capture(predict)
    eager, replayed = predict(), captured.replayed()
    furthest, largest = (replayed - eager).abs().max(), eager.abs().max()
    limit = TOLERANCES["graph"][0]
    assert furthest <= limit * largest, f"a replay differs by {furthest} of {largest}"  # NaN fails
    return cuda_event_timer(captured.replay)


def timers(predictions: list[Predict], timing: str, device: torch.device) -> list[Timer]:
    try:
        return [timer(predict, timing, device) for predict in predictions]
    except UncapturableError as error:
        pytest.skip(str(error))


def deployed(
    technique: Case, subject: Compressed, baseline: nn.Module, images: Tensor
) -> tuple[nn.Module, dict[str, int]]:
    """Return the model that is timed, and on a GPU the bytes that it holds there."""
    if images.device.type != "cuda":
        return technique.prepare(subject.load(images.device), images), {}
    # The libraries' own workspaces come first: no model is to be blamed for them.
    prediction(baseline, images)()
    before = allocated_bytes(images.device)
    model = subject.load(images.device)
    if technique.channels_last:
        model = model.to(memory_format=torch.channels_last)
    model = technique.prepare(model, images)
    return model, {"model_memory_bytes": allocated_bytes(images.device) - before}


def memory_format(technique: Case) -> torch.memory_format:
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


def card_facts(predict: Predict, images: Tensor, *, timing: str, smallest: bool) -> dict[str, Any]:
    """Return what a GPU tells beside the time: flags and memory in each row, the rest in one."""
    if images.device.type != "cuda":
        return {}
    peak_bytes = peak_memory_bytes(predict, images.device)
    facts = {**cuda_flags(), "prediction_peak_memory_bytes": peak_bytes}
    if timing == "event" and smallest:
        facts["cuda_kernels"] = count_kernels(predict)
    if timing == "graph":
        facts |= energy_facts(capture(predict).replay, images.device, images=len(images))
    elif timing == "event" and obstacle(predict):
        facts |= energy_facts(predict, images.device, images=len(images))
    return facts


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
        for attempt in range(2):  # a target or a history that is missed is measured once more
            timed = timers(predictions, timing, device)
            pairs = interleave(*timed, seed=attempt, budget_s=budget_s, warmup_s=warmup_s)
            del timed  # a graph holds its memory
            facts = latency_facts(pairs)
            met = None if limit is None else bool(facts["speed_up_high"] >= limit)
            slower = then and not comparable(facts, then) and speed_up_regression(facts, then)
            if met is not False and not slower:
                break
        smallest = batch_size == min(workload.cuda_batch_sizes)
        facts |= held | card_facts(predictions[1], images, timing=timing, smallest=smallest)
    replay(benchmark, pairs.technique_s)
    facts |= {"batch_size": batch_size, "timing": timing, "kernels": kernels}
    facts["in_float"] = [*subject.facts["in_float"], *getattr(model, "stayed", ())]
    record(benchmark, request, target=limit, target_met=met, **{**subject.facts, **facts})
    assert met is not False, f"{facts['speed_up']:.2f}x of the baseline, at least {limit}x expected"
