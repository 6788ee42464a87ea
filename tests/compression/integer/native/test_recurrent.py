"""Recurrent layers on codes in compiled code beside the layers that they stand for, to the bit."""

import copy
import pickle
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from compression.accounting import count_macs, count_parameters
from compression.errors import CompressionError, UnsupportedTypeError
from compression.integer import lacking
from compression.integer.native import (
    RECURRENT_KERNEL,
    RECURRENT_WEIGHTS_KERNEL,
    native_recurrent,
)
from compression.integer.native.recurrent import CELLS
from compression.nested import map_tensors, tensors_in
from compression.quantization import gates as reference
from compression.quantization import quantize_dynamic, quantize_weights
from compression.quantization.coded import in_float
from tests.support.recurrent_cases import NAMED, Case, assert_alike, assert_same, cases

pytestmark = pytest.mark.skipif(lacking("native") is not None, reason=str(lacking("native")))
SIZES = (1e-30, 1e-6, 1.0, 30.0, 1e4, 1e30)
"""Of inputs: gates of small numbers, of usual ones, and at their ends."""

FORMS = ((8, None), (5, 3), (4, None), (4, 64), (3, 5), (2, 1))
"""Bits of weights, and how many share a scale: in bytes, and in lanes of 4 bits, full or not."""
TOLERANCE = 1e-5
"""Of 1 and the largest output: sums of 40 products in float32, of 6 steps and 3 layers, each a
rounding of 2^-24 that a step passes on."""


def both(case: Case) -> tuple[Any, Any]:
    """Return a quantized layer and its kernel."""
    layer = quantize_dynamic(case.layer())
    kernel = native_recurrent(layer)
    assert kernel is not None
    return layer, kernel


@given(case=cases())
@torch.no_grad()
def test_any_layer_gives_the_same_bits(case: Case) -> None:
    layer, kernel = both(case)
    assert_same(kernel(*case.call()), layer(*case.call()))
    assert kernel.kernels_ran == {RECURRENT_KERNEL: case.layers}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", NAMED)
@torch.no_grad()
def test_inputs_of_every_size_give_the_same_bits(name: str, size: float) -> None:
    case = NAMED[name]
    layer, kernel = both(case)
    assert_same(kernel(*case.call(size)), layer(*case.call(size)))


@pytest.mark.parametrize("mode", ["LSTM", "GRU", "TANH", "RELU"])
@torch.no_grad()
def test_gates_are_those_of_the_reference_for_any_number(mode: str) -> None:
    """Products of zeros leave the biases, so that gates see each number as it is."""
    sizes = torch.logspace(-40, 37, 100, base=10, dtype=torch.float64).float()
    numbers = torch.cat([sizes, -sizes, torch.linspace(-20, 20, 101)])
    layer = Case(mode, inputs=1, hidden=len(numbers)).layer()
    for tensor in layer.parameters():
        tensor.zero_()
    for part in layer.bias_ih_l0.chunk(len(layer.bias_ih_l0) // len(numbers)):
        part.copy_(numbers[torch.randperm(len(numbers))])
    quantized = quantize_dynamic(layer)
    kernel: Any = native_recurrent(quantized)
    x = torch.ones(3, 2, 1)
    assert_same(kernel(x), quantized(x))


def test_the_cells_are_those_of_the_reference() -> None:
    assert set(CELLS) == set(reference.CELLS)


@torch.no_grad()
def test_a_sequence_that_is_not_finite_gives_nan_and_touches_no_other() -> None:
    for mode in ("LSTM", "GRU", "TANH", "RELU"):
        _, kernel = both(Case(mode))
        x = torch.randn(4, 5, 6)
        wanted = kernel(x)[0]
        x[1, 1, 2], x[0, 3, 5] = torch.inf, torch.nan
        found, _ = kernel(x)
        assert found[1:, 1].isnan().all()
        assert found[:, 3].isnan().all()
        assert torch.equal(found[:, [0, 2, 4]], wanted[:, [0, 2, 4]])
        assert torch.equal(found[0, 1], wanted[0, 1])


@torch.no_grad()
def test_threads_and_layouts_change_no_bit() -> None:
    case = Case(inputs=200, hidden=256, layers=2, both_ways=True, projected=200)
    layer, kernel = both(case)
    x = torch.randn(3, 9, 200)
    wanted, threads = layer(x), torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert_same(kernel(x), wanted)
    finally:
        torch.set_num_threads(threads)
    assert_same(kernel(x.transpose(0, 1).contiguous().transpose(0, 1)), wanted)
    assert_same(kernel(x[:, :0])[0], wanted[0][:, :0])
    for same in (copy.deepcopy(kernel), pickle.loads(pickle.dumps(kernel))):
        assert_same(same(input=x), wanted)


@torch.no_grad()
def test_states_that_are_given_stay_as_they_are() -> None:
    case = Case(states=True, layers=2)
    layer, kernel = both(case)
    x, (hidden, cells) = case.call()
    wanted = layer(x, (hidden, cells))
    turned = (hidden.transpose(1, 2).contiguous().transpose(1, 2), cells)
    before = hidden.clone(), cells.clone()
    assert_same(kernel(x, turned), wanted)
    assert_same((hidden, cells), before)


def test_it_looks_like_torchs_layer_to_its_parent() -> None:
    layer, kernel = both(NAMED["lstm, projected"])
    kernel.flatten_parameters()
    assert (kernel.hidden_size, kernel.batch_first, kernel.num_layers) == (8, False, 2)
    assert torch.equal(kernel.weight_hr_l1_reverse, layer.weight_hr_l1_reverse)
    with pytest.raises(UnsupportedTypeError, match="NativeRecurrent holds its weights outside"):
        count_macs(kernel, torch.ones(1, 1, 6))
    with pytest.raises(UnsupportedTypeError, match="NativeRecurrent holds its weights outside"):
        count_parameters(kernel)


def test_what_a_kernel_was_not_made_for_is_refused() -> None:
    _, kernel = both(Case())
    wrong: list[tuple[Any, str]] = [
        (torch.ones(2, 6).double(), r"deployed for float32 inputs .* found torch\.float64 on cpu"),
        (torch.ones(2, 6).long(), "deployed for float32 inputs"),
        ("text", "found text"),
        (torch.ones(2, 7), r"LSTM of 6 inputs expects"),
        (torch.ones(0, 6), "at least one step"),
    ]
    for x, message in wrong:
        with pytest.raises(CompressionError, match=message):
            kernel(x)


def test_layers_of_other_numbers_have_no_kernel() -> None:
    long, huge = nn.LSTM(2**16 + 1, 2), nn.LSTM(3, 3)
    with torch.no_grad():
        huge.weight_hh_l0.fill_(3e38)
    for other in (
        quantize_dynamic(Case().layer().double()),
        quantize_dynamic(Case().layer().bfloat16()),
        quantize_dynamic(long),
        quantize_weights(Case().layer().double()),
        quantize_weights(huge),  # a code may stand for a number beyond float32
        nn.LSTM(3, 3),
    ):
        assert native_recurrent(other) is None


@torch.no_grad()
def test_the_longest_sum_is_exact() -> None:
    layer = nn.GRU(2**16, 1, bias=False)
    for parameter in layer.parameters():
        parameter.fill_(2.0**-16)
    quantized, x = quantize_dynamic(layer), torch.ones(2, 2**16)
    kernel: Any = native_recurrent(quantized)
    found: tuple[Tensor, Tensor] = kernel(x)
    assert_same(found, quantized(x))


def exactly(layer: Any, call: tuple[Any, ...]) -> Any:
    """Return what torch gives in float64, of the numbers that the codes stand for."""
    real = copy.deepcopy(in_float(layer, lambda coded: coded.weight)).double()
    values, *states = call
    return real(values.to(torch.float64), *map_tensors(tuple(states), Tensor.double, "states"))


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
@given(case=cases(), form=st.sampled_from(FORMS))
@torch.no_grad()
def test_any_layer_of_weights_gives_what_its_codes_stand_for(
    case: Case, form: tuple[int, int | None]
) -> None:
    layer: Any = quantize_weights(case.layer(), num_bits=form[0], group_size=form[1])
    kernel: Any = native_recurrent(layer)
    found, wanted = kernel(*case.call()), exactly(layer, case.call())
    assert_alike(found, layer(*case.call()))
    for one, other in zip(tensors_in(found), tensors_in(wanted), strict=True):
        allowed = TOLERANCE * (1 + other.abs().max())
        assert ((one - other).abs() <= allowed).all()
    assert kernel.kernels_ran == {RECURRENT_WEIGHTS_KERNEL: case.layers}
    assert_same(kernel(*case.call()), found)
    assert torch.equal(kernel.weight_hh_l0, layer.weight_hh_l0)


@pytest.mark.parametrize("bits", [4, 8])
@torch.no_grad()
def test_threads_change_no_bit_of_weights(bits: int) -> None:
    case = Case(inputs=200, hidden=256, layers=2, both_ways=True, projected=200)
    kernel: Any = native_recurrent(quantize_weights(case.layer(), num_bits=bits))
    x, threads = torch.randn(3, 9, 200), torch.get_num_threads()
    wanted = kernel(x)
    torch.set_num_threads(2)
    try:
        assert_same(kernel(x), wanted)
    finally:
        torch.set_num_threads(threads)
    assert_same(copy.deepcopy(kernel)(input=x), wanted)


def test_what_a_kernel_of_weights_was_not_made_for_is_refused() -> None:
    kernel: Any = native_recurrent(quantize_weights(Case().layer()))
    for x in (torch.ones(2, 6).double(), torch.ones(2, 7), torch.ones(0, 6)):
        with pytest.raises(CompressionError, match=r"float32 inputs|6 inputs expects"):
            kernel(x)
