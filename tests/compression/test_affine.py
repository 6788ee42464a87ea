"""The twenty properties of the quantizer's contract."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from compression.affine import (
    TINY,
    QParams,
    choose_qparams,
    dequantize,
    qparams_from_range,
    quantize,
)
from compression.bits import pack_codes, pack_mask, unpack_codes, unpack_mask
from compression.errors import CompressionError, UnsupportedTypeError
from tests.support.strategies import BITS, tensors

# what: (tolerance, reason)
TOLERANCES = {
    "round trip": (0.5, 2.0**-23, "half a step, and float32's error of n steps"),
    "scale again": (2.0**-22, "two roundings of float32"),
    "tie": (1e-4, "torch multiplies by 1 / scale: it may differ next to a tie only"),
}
SYMMETRIC = st.booleans()


def in_both_modes(test: Callable[..., None]) -> Callable[..., None]:
    """Run the property as it is, and again with subnormals flushed to zero in torch's kernels."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        for flush in (False, True):
            torch.set_flush_denormal(flush)
            try:
                test(*args, **kwargs)
            finally:
                torch.set_flush_denormal(False)

    return run


@given(tensors(), BITS, SYMMETRIC)
@in_both_modes
def test_codes_lie_in_range_keep_shape_and_leave_the_input(x: Tensor, bits: int, sym: bool) -> None:
    before = x.clone()
    qparams = choose_qparams(x, num_bits=bits, symmetric=sym)
    codes = quantize(x, qparams)
    assert codes.dtype == torch.int8
    assert codes.shape == x.shape
    assert int(codes.min()) >= qparams.qmin
    assert int(codes.max()) <= qparams.qmax
    assert qparams.scale > 0
    assert torch.isfinite(qparams.scale)
    assert torch.isfinite(dequantize(codes, qparams)).all()
    assert torch.equal(x, before)


@given(tensors(min_dims=1), BITS, SYMMETRIC)
@in_both_modes
def test_zero_is_exact(x: Tensor, bits: int, sym: bool) -> None:
    x.view(-1)[0] = 0
    qparams = choose_qparams(x, num_bits=bits, symmetric=sym)
    assert dequantize(quantize(x, qparams), qparams).view(-1)[0] == 0


@given(tensors(), BITS, SYMMETRIC)
@in_both_modes
def test_round_trip_error_is_at_most_half_a_step(x: Tensor, bits: int, sym: bool) -> None:
    qparams = choose_qparams(x, num_bits=bits, symmetric=sym)
    error = (x.double() - dequantize(quantize(x, qparams), qparams).double()).abs()
    half, rounding, _ = TOLERANCES["round trip"]
    steps = qparams.qmax - qparams.qmin
    limit = float(qparams.scale) * (half + steps * rounding)
    if float(qparams.scale) <= 2 * TINY:  # flushed or subnormal: the step is the smallest number
        limit += TINY
    assert float(error.max()) <= limit


@given(tensors(min_dims=1, max_dims=1), SYMMETRIC)
@in_both_modes
def test_order_is_kept(x: Tensor, sym: bool) -> None:
    ordered = x.sort().values
    codes = quantize(ordered, choose_qparams(x, symmetric=sym)).int()
    assert bool((codes.diff() >= 0).all())


@given(BITS, SYMMETRIC, st.floats(2**-100, 2**100, width=32), st.integers(-128, 127))
def test_every_code_survives_a_round_trip(bits: int, sym: bool, scale: float, zero: int) -> None:
    low = qparams_from_range(torch.tensor(-1.0), torch.tensor(1.0), num_bits=bits, symmetric=sym)
    zero_point = 0 if sym else min(max(zero, low.qmin), low.qmax)
    qparams = QParams(
        torch.tensor(scale), torch.tensor(zero_point, dtype=torch.int32), bits, symmetric=sym
    )
    codes = torch.arange(low.qmin, low.qmax + 1, dtype=torch.int8)
    assert torch.equal(quantize(dequantize(codes, qparams), qparams), codes)


@given(tensors(), BITS)
def test_symmetric_codes_are_stable_odd_and_scale_free(x: Tensor, bits: int) -> None:
    qparams = choose_qparams(x, num_bits=bits)
    codes = quantize(x, qparams)
    again = choose_qparams(dequantize(codes, qparams), num_bits=bits)
    if x.abs().max() > 1e-30:
        relative = (again.scale.double() / qparams.scale.double() - 1).abs()
        assert relative <= TOLERANCES["scale again"][0]
        assert torch.equal(quantize(dequantize(codes, qparams), again), codes)
    assert torch.equal(quantize(-x, qparams), -codes)
    if (x == 0).logical_or((x.abs() > 1e-30) & (x.abs() < 1e30)).all():
        doubled = choose_qparams(x * 4, num_bits=bits)
        assert torch.equal(quantize(x * 4, doubled), codes)
        assert (x == 0).all() or torch.equal(doubled.scale, qparams.scale * 4)


@given(tensors(min_dims=1), BITS, SYMMETRIC, st.data())
def test_a_channel_is_quantized_as_if_alone(
    x: Tensor, bits: int, sym: bool, data: st.DataObject
) -> None:
    axis = data.draw(st.integers(0, x.ndim - 1))
    qparams = choose_qparams(x, num_bits=bits, symmetric=sym, axis=axis)
    codes = quantize(x, qparams)
    for i in range(x.shape[axis]):
        alone = choose_qparams(x.select(axis, i), num_bits=bits, symmetric=sym)
        assert torch.equal(quantize(x.select(axis, i), alone), codes.select(axis, i))
    order = torch.randperm(x.shape[axis])
    shuffled = x.index_select(axis, order)
    mixed = quantize(shuffled, choose_qparams(shuffled, num_bits=bits, symmetric=sym, axis=axis))
    assert torch.equal(mixed, codes.index_select(axis, order))


@given(tensors(min_dims=2), st.integers(1, 7))
def test_groups_are_quantized_as_if_alone(x: Tensor, size: int) -> None:
    codes = quantize(x, choose_qparams(x, group_size=size)).flatten(1)
    for row, codes_row in zip(x.flatten(1), codes, strict=True):
        for part, found in zip(row.split(size), codes_row.split(size), strict=True):
            assert torch.equal(quantize(part, choose_qparams(part)), found)


@given(tensors(min_dims=2))
def test_memory_layout_does_not_matter(x: Tensor) -> None:
    strided = x.transpose(0, 1).contiguous().transpose(0, 1)
    assert torch.equal(quantize(x, choose_qparams(x)), quantize(strided, choose_qparams(strided)))


@given(tensors(), BITS, SYMMETRIC)
def test_codes_are_those_of_numpy(x: Tensor, bits: int, sym: bool) -> None:
    q = choose_qparams(x, num_bits=bits, symmetric=sym)
    wanted = np.rint(x.numpy() / q.scale.numpy()) + q.zero_point.numpy().astype(np.float32)
    assert np.array_equal(quantize(x, q).numpy(), np.clip(wanted, q.qmin, q.qmax).astype(np.int8))


@given(st.lists(st.integers(-128, 127), max_size=70), BITS)
def test_packing_is_lossless_and_tight(values: list[int], bits: int) -> None:
    codes = torch.tensor(values, dtype=torch.int8).clamp(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    packed = pack_codes(codes, bits)
    assert len(packed) == -(-len(values) * bits // 8)
    assert torch.equal(unpack_codes(packed, num_bits=bits, numel=len(values)), codes)


@given(st.lists(st.booleans(), max_size=40))
def test_a_mask_packs_to_a_bit_each(values: list[bool]) -> None:
    mask = torch.tensor(values, dtype=torch.bool)
    packed = pack_mask(mask)
    assert len(packed) == -(-len(values) // 8)
    assert torch.equal(unpack_mask(packed, numel=len(values)), mask)


def test_packed_bytes_of_a_worked_example() -> None:
    # 1, -1, 2 in 3 bits: 001 111 010, lowest bit first -> 0b10111001, 0b0
    packed = pack_codes(torch.tensor([1, -1, 2], dtype=torch.int8), 3)
    assert packed.tolist() == [0b10111001, 0b0]


@pytest.mark.parametrize("numel", [7, 9])
def test_packed_bytes_of_a_wrong_length_are_refused(numel: int) -> None:
    with pytest.raises(CompressionError, match=r"packed bytes|zero bits"):
        unpack_mask(torch.tensor([0xFF, 0xFF], dtype=torch.uint8), numel=numel)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_computes_in_float32(dtype: torch.dtype) -> None:
    x = torch.randn(100, generator=torch.Generator().manual_seed(0)).to(dtype)
    qparams = choose_qparams(x)
    assert qparams.scale.dtype == torch.float32
    assert torch.equal(quantize(x, qparams), quantize(x.float(), choose_qparams(x.float())))


@pytest.mark.parametrize("shape", [(0,), (0, 3), (3, 0)])
def test_an_empty_tensor_has_the_smallest_scale_and_no_codes(shape: tuple[int, ...]) -> None:
    qparams = choose_qparams(torch.empty(shape))
    assert float(qparams.scale) == TINY
    assert quantize(torch.empty(shape), qparams).shape == shape


def test_torch_differs_next_to_ties_only() -> None:
    x = torch.randn(10_000, generator=torch.Generator().manual_seed(0))
    q = choose_qparams(x, symmetric=False)
    values = torch.fake_quantize_per_tensor_affine(x, q.scale, q.zero_point, q.qmin, q.qmax)
    theirs = (values / q.scale).round().int() + q.zero_point
    differing = theirs != quantize(x, q)
    assert int((theirs - quantize(x, q).int()).abs().max()) <= 1
    distance = ((x / q.scale).frac().abs()[differing] - 0.5).abs()
    assert bool((distance < TOLERANCES["tie"][0]).all())


BAD = {
    "integers": (torch.ones(3, dtype=torch.int32), {}, UnsupportedTypeError, "int32"),
    "bool": (torch.ones(3, dtype=torch.bool), {}, UnsupportedTypeError, "bool"),
    "complex": (torch.ones(3, dtype=torch.complex64), {}, UnsupportedTypeError, "complex"),
    "nan": (torch.tensor([1.0, float("nan")]), {}, CompressionError, "fc.weight.* 1 of 2"),
    "infinity": (torch.tensor([float("inf")] * 3), {}, CompressionError, "3 of 3"),
    "axis": (torch.ones(2, 2), {"axis": 2}, CompressionError, "axis must lie in 0..1"),
    "1 bit": (torch.ones(2), {"num_bits": 1}, CompressionError, "2 to 8"),
    "9 bits": (torch.ones(2), {"num_bits": 9}, CompressionError, "2 to 8"),
    "group": (torch.ones(2, 2), {"group_size": 0}, CompressionError, "group_size"),
    "group axis": (torch.ones(2, 2), {"group_size": 2, "axis": 1}, CompressionError, "axis"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused_by_name(name: str) -> None:
    x, options, error, message = BAD[name]
    with pytest.raises(error, match=message):
        choose_qparams(x, name="fc.weight", **options)


@pytest.mark.parametrize(
    ("scale", "zero_point", "message"),
    [(0.0, 0, "scale"), (-1.0, 0, "scale"), (float("nan"), 0, "scale"), (1.0, 200, "zero_point")],
)
def test_bad_parameters_are_refused(scale: float, zero_point: int, message: str) -> None:
    with pytest.raises(CompressionError, match=message):
        QParams(torch.tensor(scale), torch.tensor(zero_point), symmetric=False)


def test_a_scale_of_the_wrong_length_is_refused() -> None:
    qparams = choose_qparams(torch.ones(3, 2), axis=0)
    with pytest.raises(CompressionError, match="shape"):
        quantize(torch.ones(4, 2), qparams)
