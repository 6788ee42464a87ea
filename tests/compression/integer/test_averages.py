"""Averages over windows that reach beyond the image, on kernels: each window counts its own pixels."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from compression.integer import code_differences, lacking, lower_native, lower_triton
from compression.quantization import quantize_static
from tests.support.interpreter import lacking_interpreter
from tests.support.strategies import examples


@pytest.mark.skipif(lacking("native") is not None, reason=str(lacking("native")))
@settings(max_examples=examples(60), deadline=None)
@given(
    size=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    pad=st.booleans(),
    ceil=st.booleans(),
    sides=st.tuples(st.integers(4, 9), st.integers(4, 9)),
)
@torch.no_grad()
def test_native_is_the_reference_bit_for_bit(
    size: tuple[int, int], stride: tuple[int, int], pad: bool, ceil: bool, sides: tuple[int, int]
) -> None:
    padding = (size[0] // 2, size[1] // 2) if pad else (0, 0)
    pool = nn.AvgPool2d(size, stride, padding, ceil_mode=ceil, count_include_pad=False)
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 20, 3, padding=1), pool, nn.Conv2d(20, 4, 1)).eval()
    x = torch.randn(3, 3, *sides)
    static = quantize_static(net, x)
    assert torch.equal(lower_native(static, x)(x[:2]), static(x[:2]))


@pytest.mark.skipif(bool(lacking_interpreter()), reason=lacking_interpreter())
@torch.inference_mode()
def test_triton_too() -> None:
    torch.manual_seed(0)
    pool = nn.AvgPool2d(3, 2, 1, ceil_mode=True, count_include_pad=False)
    net = nn.Sequential(nn.Conv2d(3, 8, 3), pool, nn.Conv2d(8, 4, 1)).eval()
    x = torch.randn(2, 3, 8, 8)
    static = quantize_static(net, x)
    differences = code_differences(static, lower_triton(static, x, keep=True), x)
    assert set(differences.values()) == {(0, 0.0)}


@pytest.mark.skipif(lacking("native") is not None, reason=str(lacking("native")))
@torch.no_grad()
def test_signals_too() -> None:
    torch.manual_seed(0)
    pool = nn.AvgPool1d(4, 3, 2, ceil_mode=True, count_include_pad=False)
    net = nn.Sequential(nn.Conv1d(3, 8, 3), pool, nn.Conv1d(8, 4, 1)).eval()
    x = torch.randn(4, 3, 19)
    static = quantize_static(net, x)
    assert torch.equal(lower_native(static, x)(x), static(x))
