"""LSTM and GRU on codes beside float32: `pytest benchmarks/test_recurrent.py -m integer`."""

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
LAYERS: dict[str, Callable[..., nn.Module]] = {"lstm": nn.LSTM, "gru": nn.GRU}
SIZES = (256, 512, 1024)
"""Inputs and hidden states: a small tagger's layer, and a speech or language model's."""
STEPS = 32
KINDS: dict[str, tuple[str, Callable[[nn.Module], nn.Module]]] = {
    "int8": (native.RECURRENT_WEIGHTS_KERNEL, partial(quantize_weights, num_bits=8)),
    "int4": (native.RECURRENT_WEIGHTS_KERNEL, partial(quantize_weights, num_bits=4, group_size=64)),
    "dynamic": (native.RECURRENT_KERNEL, quantize_dynamic),
}
AT_LEAST = 1.0
"""Of float32's speed, for one sequence."""
BUDGET_S = 0.6

pytestmark = [pytest.mark.integer, pytest.mark.benchmark(timer=CLOCK)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", SIZES, ids="{0}x{0}".format)
@pytest.mark.parametrize("layer", LAYERS)
def test_recurrent(benchmark: Any, request: Any, layer: str, size: int, kind: str) -> None:
    if reason := lacking("native"):
        pytest.skip(reason)
    torch.manual_seed(0)
    kernel, quantize = KINDS[kind]
    model, inputs = LAYERS[layer](size, size).eval(), torch.randn(STEPS, 1, size)
    deployed = deploy(quantize(model), inputs)
    with torch.inference_mode():
        ran = kernels_of(deployed, inputs)[kernel]
        timers = [wall_timer(partial(m, inputs), CPU) for m in (model, deployed)]
        pairs = interleave(*timers, seed=0, budget_s=BUDGET_S)
    replay(benchmark, pairs.technique_s)
    facts = latency_facts(pairs)
    met = facts["speed_up_high"] >= AT_LEAST
    record(
        benchmark, request, technique=f"{layer}-{size}x{size}-{kind}", device="cpu",
        workload="layers", data="numbers at random", simulated=False, timing="wall",
        batch_size=1, integer_kernels=ran, target=AT_LEAST, target_met=met, **facts,
    )  # fmt: skip
    assert ran
    assert met, f"{facts['speed_up']:.2f} of float32's speed"
