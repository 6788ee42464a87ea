"""Linear layers on codes beside float32: `pytest benchmarks/test_linear.py -m integer`."""

from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from benchmarks.layer_speed import Kind, time_layer
from benchmarks.timing.clock import CLOCK
from compression.integer import native
from compression.quantization import quantize_dynamic, quantize_weights

SIZES = ((64, 10), (512, 1000), (768, 3072), (4096, 4096))
"""Inputs and outputs: a digit's, ResNet-18's and ViT-B's layers, and one beyond the caches."""
ROWS = (1, 8, 64)
KINDS: dict[str, Kind] = {
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
    torch.manual_seed(0)
    model, inputs = nn.Sequential(nn.Linear(*size)), torch.randn(rows, size[0])
    target = AT_LEAST if rows == 1 and size[0] * size[1] >= SMALLEST else None
    time_layer(
        benchmark, request, KINDS[kind], model, inputs, batch_size=rows, budget_s=BUDGET_S,
        technique=f"linear-{size[0]}x{size[1]}-{kind}", target=target,
    )  # fmt: skip
