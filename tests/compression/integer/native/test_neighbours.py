"""Depthwise convolutions of few channels: neighbouring pixels side by side, bit for bit as before."""

from typing import Any

import pytest
import torch
from torch import nn

from compression.integer import lacking, lower_native
from compression.integer.native.step import KINDS
from compression.quantization import quantize_static
from tests.support.integer_nets import Depthwise, numbers

pytestmark = pytest.mark.skipif(lacking("native") is not None, reason=str(lacking("native")))
SAME: dict[str, Any] = {"kernel_size": 3, "padding": 1}


@pytest.mark.parametrize(
    ("channels", "columns", "window", "wide"),
    [
        (16, 12, SAME, 64),
        (24, 16, SAME, 192),
        (32, 7, SAME, 224),
        (60, 7, SAME, 60),  # nearly full
        (40, 14, SAME, 560),
        (64, 12, SAME, 64),  # its vectors are full
        (16, 12, SAME | {"stride": 2}, 16),  # what is read does not lie side by side
        (16, 12, {"kernel_size": 3, "padding": 2, "dilation": 2}, 64),
        (16, 12, {"kernel_size": (1, 5), "padding": (0, 2)}, 64),
        (16, 12, {"kernel_size": 1}, 64),
    ],
)
@pytest.mark.parametrize("added", [False, True])
def test_few_channels_fill_whole_vectors(
    channels: int, columns: int, window: dict[str, Any], wide: int, added: bool
) -> None:
    torch.manual_seed(0)
    x = numbers(3, 2, 6, columns)
    reference = quantize_static(Depthwise(channels, added=added, real=False, **window).eval(), x)
    integer = lower_native(reference, x)
    steps = [step for step in integer._steps if KINDS[step.kind] == "DEPTHWISE"]
    assert [step.channels for step in steps] == [wide]
    with torch.inference_mode():
        assert torch.equal(integer(x), reference(x))
        assert torch.equal(integer(x[:1]), reference(x[:1]))


def test_real_outputs_stay_pixel_by_pixel() -> None:
    torch.manual_seed(0)
    x = numbers(2, 16, 6, 12)
    reference = quantize_static(nn.Sequential(nn.Conv2d(16, 16, 3, 1, 1, groups=16)).eval(), x)
    integer = lower_native(reference, x)
    assert [s.channels for s in integer._steps if KINDS[s.kind] == "DEPTHWISE"] == [16]
    with torch.inference_mode():
        assert torch.equal(integer(x), reference(x))
