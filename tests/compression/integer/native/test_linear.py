"""Linear layers on codes in compiled code beside the layers that they stand for."""

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compression.accounting import count_macs
from compression.errors import CompressionError, UnsupportedTypeError
from compression.integer import lacking
from compression.integer.native import DYNAMIC_KERNEL, WEIGHTS_KERNEL, native_linear
from compression.integer.native.linear import pack_groups, unpack_groups
from compression.quantization import quantize_dynamic, quantize_weights

pytestmark = pytest.mark.skipif(lacking("native") is not None, reason=str(lacking("native")))
SHAPES = [(1, 1), (3, 17), (8, 16), (33, 40), (64, 64), (100, 70), (130, 200)]
"""Inputs and outputs: less than a vector, whole ones, and what is left of one, two and four."""
ROWS = (1, 2, 3, 4, 5, 11)
ROUNDING = 16 * 2.0**-24
"""Of the sum of magnitudes, per root of its terms: two orders of a sum in float32 differ by less."""


def linear(inputs: int, outputs: int, *, bias: bool = True) -> nn.Linear:
    torch.manual_seed(inputs + outputs)
    return nn.Linear(inputs, outputs, bias=bias)


def kernel_of(layer: nn.Module) -> Any:
    kernel = native_linear(layer)
    assert kernel is not None
    return kernel


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("group_size", [None, 1, 5, 8, 64])
@torch.no_grad()
def test_weights_are_unpacked_in_the_kernel(bits: int, group_size: int | None) -> None:
    for inputs, outputs in SHAPES:
        layer: Any = quantize_weights(
            linear(inputs, outputs, bias=bits % 2 == 0), num_bits=bits, group_size=group_size
        )
        kernel = kernel_of(layer)
        assert torch.equal(kernel.weight, layer.weight)
        assert kernel.packed.numel() <= (inputs + 7 * kernel.scale.numel()) * 64 * 4
        for rows in ROWS:
            x = torch.randn(rows, inputs)
            bias = None if layer.bias is None else layer.bias.abs()
            allowed = F.linear(x.abs(), layer.weight.abs(), bias) * ROUNDING * inputs**0.5
            assert ((kernel(x) - layer(x)).abs() <= allowed).all()
            assert kernel.kernels_ran == {WEIGHTS_KERNEL: 1}


@pytest.mark.parametrize("bits", [4, 8])
def test_packed_weights_take_as_many_bits(bits: int) -> None:
    kernel = kernel_of(quantize_weights(linear(128, 192), num_bits=bits))
    assert kernel.packed.nbytes == 128 * 192 * bits // 8


def odd_rows(inputs: int) -> Tensor:
    """Return rows of every size: all 0, negative, tiny, huge, subnormal, of one number."""
    x = torch.randn(9, inputs)
    for row, factor in enumerate((0.0, 1.0, 1e-30, 1e38, 1e-41)):
        x[row] = (x[row] * factor).clamp(-3e38, 3e38)
    x[5], x[6], x[7] = -x[5].abs(), x[6].abs(), 1.5
    return x


@pytest.mark.parametrize("bias", [True, False])
@torch.no_grad()
def test_dynamic_layers_give_the_same_bits(bias: bool) -> None:
    for inputs, outputs in SHAPES:
        layer: Any = quantize_dynamic(linear(inputs, outputs, bias=bias))
        kernel, x = kernel_of(layer), odd_rows(inputs)
        for rows in range(1, 10):
            assert torch.equal(kernel(x[:rows]), layer(x[:rows]))
            assert torch.equal(kernel(x[9 - rows :]), layer(x[9 - rows :]))
        assert torch.equal(kernel.weight, layer.weight)
        assert torch.equal(unpack_groups(pack_groups(layer.codes), outputs, inputs), layer.codes)
        assert kernel.kernels_ran == {DYNAMIC_KERNEL: 1}


@torch.no_grad()
def test_the_longest_dynamic_sum_is_exact_and_a_longer_one_has_no_kernel() -> None:
    layer = nn.Linear(2**16, 2, bias=False)
    layer.weight.fill_(1.0)
    quantized, x = quantize_dynamic(layer), torch.ones(2, 2**16)
    assert torch.equal(kernel_of(quantized)(x), quantized(x))
    assert native_linear(quantize_dynamic(nn.Linear(2**16 + 1, 2))) is None


def test_a_row_that_is_not_finite_gives_nan_and_touches_no_other() -> None:
    layer = quantize_dynamic(linear(33, 40))
    kernel, x = kernel_of(layer), torch.randn(4, 33)
    wanted = kernel(x)
    x[1, 5], x[2, 32] = torch.inf, torch.nan
    found = kernel(x)
    assert found[1:3].isnan().all()
    assert torch.equal(found[[0, 3]], wanted[[0, 3]])


@pytest.mark.parametrize("quantize", [quantize_dynamic, quantize_weights])
@torch.no_grad()
def test_threads_and_shapes_change_no_bit(quantize: Any) -> None:
    kernel, x = kernel_of(quantize(linear(512, 300))), torch.randn(2, 9, 512)
    wanted = kernel(x.view(-1, 512))
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert torch.equal(kernel(x).view(-1, 300), wanted)
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(kernel(x.transpose(0, 1))[3, 1], wanted[12])
    assert torch.equal(kernel(input=x[0, 0]), kernel(x[0, :1])[0])
    assert kernel(x[:0]).shape == (0, 9, 300)
    for same in (copy.deepcopy(kernel), pickle.loads(pickle.dumps(kernel))):
        assert torch.equal(same(x).view(-1, 300), wanted)


@pytest.mark.parametrize("quantize", [quantize_dynamic, quantize_weights])
def test_what_a_kernel_was_not_made_for_is_refused(quantize: Any) -> None:
    kernel = kernel_of(quantize(linear(8, 4)))
    for x in (torch.ones(2, 8).double(), torch.ones(2, 9), torch.ones(()), torch.ones(8).long()):
        with pytest.raises(CompressionError, match=r"deployed for float32 inputs \(\.\.\., 8\)"):
            kernel(x)
    with pytest.raises(UnsupportedTypeError, match="holds its weights outside of torch"):
        count_macs(kernel, torch.ones(1, 8))


def test_layers_of_other_numbers_have_no_kernel() -> None:
    huge = linear(4, 4)
    with torch.no_grad():
        huge.weight.fill_(3e38)
    for other in (
        quantize_weights(huge),  # a code may stand for a number beyond float32
        quantize_weights(linear(4, 4).double()),
        quantize_dynamic(linear(4, 4).bfloat16()),
        quantize_weights(nn.Conv2d(3, 4, 1)),
        nn.Linear(4, 4),
    ):
        assert native_linear(other) is None
