"""LSTM and GRU on codes beside float32: `pytest benchmarks/test_recurrent.py -m integer`."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from benchmarks.layer_speed import Kind, time_layer
from benchmarks.timing.clock import CLOCK
from compression.integer import native
from compression.quantization import quantize_dynamic, quantize_weights

LAYERS: dict[str, Callable[..., nn.Module]] = {"lstm": nn.LSTM, "gru": nn.GRU}
SIZES = (256, 512, 1024)
"""Inputs and hidden states: a small tagger's layer, and a speech or language model's."""
STEPS = 32
KINDS: dict[str, Kind] = {
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
    torch.manual_seed(0)
    model, inputs = LAYERS[layer](size, size), torch.randn(STEPS, 1, size)
    time_layer(
        benchmark, request, KINDS[kind], model, inputs, batch_size=1, budget_s=BUDGET_S,
        technique=f"{layer}-{size}x{size}-{kind}", target=AT_LEAST,
    )  # fmt: skip
