"""The quantizer and the packer at the edges of what they take, and what they refuse."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from compression.affine import QParams, choose_qparams, dequantize, qparams_from_range, quantize
from compression.bits import (
    pack_codes,
    pack_gaps,
    pack_indices,
    pack_mask,
    unpack_codes,
    unpack_gaps,
    unpack_indices,
    unpack_mask,
)
from compression.errors import CompressionError, UnsupportedTypeError

LARGEST = torch.finfo(torch.float32).max
META, CODES, FLAGS = (
    torch.empty(3, dtype=dtype, device="meta") for dtype in (torch.float32, torch.int8, torch.bool)
)
X = torch.arange(12.0).view(3, 4)
Q = choose_qparams(X)
ZERO = torch.tensor(0, dtype=torch.int32)


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits", range(2, 9))
def test_the_largest_numbers_stay_finite(bits: int, symmetric: bool) -> None:
    """The scale rounds up, and affine codes reach half a step beyond the range."""
    for values in ([LARGEST, -LARGEST, 1.0], [LARGEST], [-LARGEST], [LARGEST, 0.0]):
        x = torch.tensor(values)
        qparams = choose_qparams(x, num_bits=bits, symmetric=symmetric)
        again = dequantize(quantize(x, qparams), qparams)
        assert torch.isfinite(again).all()
        error = (again.double() - x.double()).abs().max()
        assert error <= 0.51 * float(qparams.scale)


EMPTY = [(0,), (0, 3), (3, 0), (2, 0, 3)]


@pytest.mark.parametrize("shape", EMPTY, ids=str)
def test_empty_tensors_have_scales_per_axis_and_group(shape: tuple[int, ...]) -> None:
    x = torch.empty(shape)
    for options, scales in (
        ({"axis": 0}, (shape[0],)),
        ({"axis": len(shape) - 1}, (shape[-1],)),
        ({"group_size": 2}, (shape[0], 1)),
    ):
        qparams = choose_qparams(x, **options)  # type: ignore[arg-type]
        assert qparams.scale.shape == scales
        assert dequantize(quantize(x, qparams), qparams).shape == shape


def test_a_group_longer_than_any_row_is_the_row() -> None:
    huge = choose_qparams(X, group_size=10**18)
    rows = choose_qparams(X, axis=0)
    assert torch.equal(huge.scale.view(-1), rows.scale)
    assert torch.equal(quantize(X, huge), quantize(X, rows))


def test_eight_bit_floats_compute_in_float32() -> None:
    x = X.to(torch.float8_e4m3fn)
    assert torch.equal(quantize(x, choose_qparams(x)), quantize(X, choose_qparams(x.float())))


def test_doubles_beyond_float32_saturate_but_have_no_scale() -> None:
    x = torch.tensor([1e300, -1e300], dtype=torch.float64)
    assert quantize(x, Q).tolist() == [127, -127]
    with pytest.raises(CompressionError, match="fc: expected finite values, found 2 of 2"):
        choose_qparams(x, name="fc")


def test_unusual_layouts_are_quantized_and_packed_as_they_read() -> None:
    for x in (X.t(), X[:, ::2], X[0].expand(3, 4), X.view(1, 3, 2, 2).permute(0, 2, 3, 1)):
        qparams = choose_qparams(x, axis=1)
        packed = x.contiguous()
        assert torch.equal(qparams.scale, choose_qparams(packed, axis=1).scale)
        codes = quantize(x, qparams)
        assert torch.equal(codes, quantize(packed, qparams))
        assert torch.equal(
            pack_codes(codes.t() if codes.ndim == 2 else codes, 8),
            pack_codes((codes.t() if codes.ndim == 2 else codes).contiguous(), 8),
        )


def test_subnormals_flushed_to_zero_are_zero_or_a_step() -> None:
    x = torch.tensor([1e-45, -1e-40, 1e-39, 2.0**-126, 0.0])
    torch.set_flush_denormal(True)
    try:
        for symmetric in (True, False):
            for options in ({}, {"group_size": 2}, {"axis": 0}):
                rows = x if "group_size" not in options else x.view(1, -1)
                qparams = choose_qparams(rows, symmetric=symmetric, **options)  # type: ignore[arg-type]
                again = dequantize(quantize(rows, qparams), qparams)
                assert torch.isfinite(again).all()
                assert (again - rows).abs().max() <= 2.0**-126
    finally:
        torch.set_flush_denormal(False)


def scaled(scale: Any, zero_point: Any = ZERO) -> QParams:
    return QParams(scale, zero_point)


# What is asked, the error, and what it says.
REFUSED: dict[str, tuple[Callable[[], object], type[Exception], str]] = {
    "no tensor": (lambda: choose_qparams([1.0]), UnsupportedTypeError, "a tensor, found list"),  # type: ignore[arg-type]
    "nothing": (lambda: choose_qparams(None, name="fc"), UnsupportedTypeError, "fc: .* NoneType"),  # type: ignore[arg-type]
    "meta": (lambda: choose_qparams(META), UnsupportedTypeError, "found a meta tensor"),
    "sparse": (lambda: choose_qparams(torch.eye(2).to_sparse()), UnsupportedTypeError, "sparse"),
    "axis true": (lambda: choose_qparams(X, axis=True), CompressionError, "axis must lie in"),
    "axis 1.0": (lambda: choose_qparams(X, axis=1.0), CompressionError, "found 1.0"),  # type: ignore[arg-type]
    "axis text": (lambda: choose_qparams(X, axis="0"), CompressionError, "found '0'"),  # type: ignore[arg-type]
    "codes of a list": (lambda: dequantize([1], Q), UnsupportedTypeError, "codes: .* found list"),  # type: ignore[arg-type]
    "codes on meta": (lambda: dequantize(CODES, Q), UnsupportedTypeError, "meta"),
    "codes beyond int32": (
        lambda: dequantize(torch.tensor([2**40]), Q),
        CompressionError,
        "int32's range, found 1099511627776",
    ),
    "range of numbers": (lambda: qparams_from_range(-1.0, 1.0), UnsupportedTypeError, "a range"),  # type: ignore[arg-type]
    "range of two shapes": (
        lambda: qparams_from_range(torch.zeros(2), torch.ones(3)),
        CompressionError,
        r"one shape and device, found \(2,\) on cpu and \(3,\)",
    ),
    "range reversed": (
        lambda: qparams_from_range(torch.tensor(1.0), torch.tensor(-1.0)),
        CompressionError,
        "lower end above its upper",
    ),
    "scale of a number": (lambda: scaled(1.0), UnsupportedTypeError, "scale: .* found float"),
    "scale of integers": (lambda: scaled(ZERO + 1), UnsupportedTypeError, "scale must be floating"),
    "scale on meta": (lambda: scaled(META), UnsupportedTypeError, "scale: .* meta"),
    "zero point of a half": (
        lambda: scaled(torch.tensor(1.0), torch.tensor(0.5)),
        UnsupportedTypeError,
        "zero_point must be integers",
    ),
    "packing a list": (lambda: pack_mask([True]), UnsupportedTypeError, "a mask to pack: .* list"),  # type: ignore[arg-type]
    "packing meta": (lambda: pack_codes(CODES, 3), UnsupportedTypeError, "meta"),
    "gaps of meta": (lambda: pack_gaps(FLAGS), UnsupportedTypeError, "meta"),
    "indices of nothing": (lambda: pack_indices(None, 3), UnsupportedTypeError, "NoneType"),  # type: ignore[arg-type]
}
OCTETS = torch.zeros(1, dtype=torch.uint8)
UNPACK: dict[str, Callable[[Tensor, Any], Tensor]] = {
    "codes": lambda packed, count: unpack_codes(packed, num_bits=3, numel=count),
    "indices": lambda packed, count: unpack_indices(packed, num_bits=3, numel=count),
    "mask": lambda packed, count: unpack_mask(packed, numel=count),
    "gaps": lambda packed, count: unpack_gaps(packed, numel=count),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_no_input_is_refused(kind: str) -> None:
    call, error, match = REFUSED[kind]
    with pytest.raises(error, match=match):
        call()


@pytest.mark.parametrize("kind", UNPACK)
def test_what_cannot_be_unpacked_is_refused(kind: str) -> None:
    for count in (-1, 2.0, True, None):
        with pytest.raises(CompressionError, match="numel must be a whole number from 0"):
            UNPACK[kind](OCTETS, count)
    for packed in (None, [0], torch.empty(1, dtype=torch.uint8, device="meta")):
        with pytest.raises(UnsupportedTypeError, match="packed bytes: expected a"):
            UNPACK[kind](packed, 2)  # type: ignore[arg-type]


class Elsewhere(Tensor):
    """A tensor that says it is on another device, where a test has none."""

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return torch.device("cuda")


def test_tensors_of_two_devices_are_refused_by_name() -> None:
    away = torch.ones(3, 4).as_subclass(Elsewhere)
    with pytest.raises(CompressionError, match="on cpu, the tensor is on cuda; move one"):
        quantize(away, Q)
    with pytest.raises(CompressionError, match=r"on one device, found cuda.* and cpu"):
        QParams(torch.tensor(1.0).as_subclass(Elsewhere), ZERO)
