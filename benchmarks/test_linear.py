"""Linear layers on codes beside float32: `pytest benchmarks/test_linear.py -m integer`."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from benchmarks.facts.record import record
from benchmarks.machine.kernels import kernels_of
from benchmarks.timing.clock import CLOCK, replay, wall_timer
from benchmarks.timing.speed_up import interleave, latency_facts
from compression.integer import deploy, lacking, native
from compression.quantization import quantize_dynamic, quantize_weights

CPU = torch.device("cpu")
SIZES = ((64, 10), (512, 1000), (768, 3072), (4096, 4096))
"""Inputs and outputs: a digit's, ResNet-18's and ViT-B's layers, and one beyond the caches."""
ROWS = (1, 8, 64)
KINDS: dict[str, tuple[str, Callable[[nn.Module], nn.Module]]] = {
    "int8": (native.WEIGHTS_KERNEL, partial(quantize_weights, num_bits=8)),
    "int4": (native.WEIGHTS_KERNEL, partial(quantize_weights, num_bits=4, group_size=64)),
    "dynamic": (native.DYNAMIC_KERNEL, quantize_dynamic),
}
AT_LEAST = 1.0
"""Of float32's speed, for one row of a layer that is worth a kernel."""
SMALLEST = 512 * 1000
BUDGET_S = 2.0

pytestmark = [pytest.mark.integer, pytest.mark.benchmark(timer=CLOCK)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rows", ROWS, ids="rows{}".format)
@pytest.mark.parametrize("size", SIZES, ids=lambda size: "{}x{}".format(*size))
def test_linear(benchmark: Any, request: Any, size: tuple[int, int], rows: int, kind: str) -> None:
    if reason := lacking("native"):
        pytest.skip(reason)
    torch.manual_seed(0)
    kernel, quantize = KINDS[kind]
    model, inputs = nn.Sequential(nn.Linear(*size)).eval(), torch.randn(rows, size[0])
    deployed = deploy(quantize(model), inputs)
    with torch.inference_mode():
        ran = kernels_of(deployed, inputs)[kernel]
        timers = [wall_timer(partial(m, inputs), CPU) for m in (model, deployed)]
        pairs = interleave(*timers, seed=0, budget_s=BUDGET_S)
    replay(benchmark, pairs.technique_s)
    facts = latency_facts(pairs)
    target = AT_LEAST if rows == 1 and size[0] * size[1] >= SMALLEST else None
    met = None if target is None else facts["speed_up_high"] >= target
    record(
        benchmark, request, technique=f"linear-{size[0]}x{size[1]}-{kind}", device="cpu",
        workload="layers", data="numbers at random", simulated=False, timing="wall",
        batch_size=rows, integer_kernels=ran, target=target, target_met=met, **facts,
    )  # fmt: skip
    assert ran
    assert met is not False, f"{facts['speed_up']:.2f} of float32's speed"
