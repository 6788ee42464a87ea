"""A layer on codes, deployed and timed in turn with its float32 form."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from benchmarks.facts.record import record
from benchmarks.machine.kernels import kernels_of
from benchmarks.timing.clock import replay, wall_timer
from benchmarks.timing.speed_up import interleave, latency_facts
from compression.integer import deploy, lacking

CPU = torch.device("cpu")
Kind = tuple[str, Callable[[nn.Module], nn.Module]]
"""The kernel that must be seen to run, and what makes codes."""


def time_layer(
    benchmark: Any,
    request: Any,
    kind: Kind,
    model: nn.Module,
    inputs: Tensor,
    *,
    technique: str,
    batch_size: int,
    budget_s: float,
    target: float | None,
) -> None:
    """Record how many times as fast a layer on codes is, and assert what `target` promises of it."""
    if reason := lacking("native"):
        pytest.skip(reason)
    kernel, quantize = kind
    deployed = deploy(quantize(model.eval()), inputs)
    with torch.inference_mode():
        ran = kernels_of(deployed, inputs)[kernel]
        timers = [wall_timer(partial(m, inputs), CPU) for m in (model, deployed)]
        pairs = interleave(*timers, seed=0, budget_s=budget_s)
    replay(benchmark, pairs.technique_s)
    facts = latency_facts(pairs)
    met = None if target is None else facts["speed_up_high"] >= target
    record(
        benchmark, request, technique=technique, device="cpu", workload="layers",
        data="numbers at random", simulated=False, timing="wall", batch_size=batch_size,
        integer_kernels=ran, target=target, target_met=met, **facts,
    )  # fmt: skip
    assert ran
    assert met is not False, f"{facts['speed_up']:.2f} of float32's speed"
