"""Affine quantization: real numbers <-> integer codes, per tensor, per channel or per group.

    q = clamp(round_half_even(x / scale) + zero_point, qmin, qmax)        x^ = scale (q - zero_point)

in float32 with true division (a multiplication by 1 / scale differs on near-ties), so that

- symmetric codes have zero point 0 and the range -(2^(b-1) - 1) .. 2^(b-1) - 1;
- affine codes use -2^(b-1) .. 2^(b-1) - 1, and their range always contains 0, which is exact;
- a scale is at least 2^-126, the smallest normal number, so that it is never 0 nor its ratio NaN.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from compression.checks import check_dense, is_whole
from compression.errors import CompressionError, UnsupportedTypeError

INT8_MIN, INT8_MAX = -128, 127
"""The ends of affine codes of 8 bits."""
TINY = 2.0**-126
"""The smallest normal number of float32."""
_LARGEST = torch.finfo(torch.float32).max
_INT32 = torch.iinfo(torch.int32)


@dataclass(frozen=True, slots=True)
class QParams:
    """Scale (float32) and zero point (int32) of a tensor's codes.

    Both are 0-dim per tensor, (channels,) with `axis`, and (rows, groups) with `group_size`, where a
    group is `group_size` consecutive elements of a row x[i].flatten(), the last one maybe shorter.
    """

    scale: Tensor
    zero_point: Tensor
    num_bits: int = 8
    symmetric: bool = True
    axis: int | None = None
    group_size: int | None = None
    overflows: bool = field(init=False, repr=False, compare=False)
    """Whether a code may stand for a number beyond float32, which dequantize then saturates."""

    def __post_init__(self) -> None:
        """Refuse parameters that no tensor can be quantized with."""
        check_bits(self.num_bits)
        _check_numbers(self.scale, self.zero_point)
        bad = ~(torch.isfinite(self.scale) & (self.scale > 0))
        if bad.any():
            raise CompressionError(
                f"scale must be finite and above 0, found {self.scale[bad][0].item()}"
            )
        outside = (self.zero_point < self.qmin) | (self.zero_point > self.qmax)
        if outside.any():
            raise CompressionError(
                f"zero_point must lie in {self.qmin}..{self.qmax} for {self.num_bits} bits, found "
                f"{self.zero_point[outside][0].item()}"
            )
        if self.scale.shape != self.zero_point.shape:
            raise CompressionError(
                f"scale and zero_point must have one shape, found {tuple(self.scale.shape)} and "
                f"{tuple(self.zero_point.shape)}"
            )
        steps = 2**self.num_bits - 1
        largest = float(self.scale.max()) if self.scale.numel() else 0.0
        object.__setattr__(self, "overflows", largest * steps > _LARGEST)

    @property
    def qmin(self) -> int:
        """Smallest code."""
        return code_range(self.num_bits, symmetric=self.symmetric)[0]

    @property
    def qmax(self) -> int:
        """Largest code."""
        return code_range(self.num_bits, symmetric=self.symmetric)[1]


def code_range(num_bits: int, *, symmetric: bool) -> tuple[int, int]:
    """Return the smallest and the largest code of `num_bits` (2 to 8)."""
    check_bits(num_bits)
    largest = 2 ** (num_bits - 1) - 1
    return (-largest if symmetric else -largest - 1), largest


def choose_qparams(
    x: Tensor,
    *,
    num_bits: int = 8,
    symmetric: bool = True,
    axis: int | None = None,
    group_size: int | None = None,
    name: str = "tensor",
) -> QParams:
    """Return the parameters whose range just covers `x`; an empty tensor gives the smallest scale.

    Raises UnsupportedTypeError for other than floating tensors, and CompressionError with `name` and
    the count for NaN or infinity, an axis out of range, or a group size below 1.
    """
    _check_tensor(x, name)
    numbers = x.detach().float()
    if x.dtype == torch.float64:
        _check_finite(numbers, name)  # beyond float32
    low, high = _ranges(numbers, axis, group_size)
    return qparams_from_range(
        low, high, num_bits=num_bits, symmetric=symmetric, axis=axis, group_size=group_size
    )


def qparams_from_range(
    low: Tensor,
    high: Tensor,
    *,
    num_bits: int = 8,
    symmetric: bool = True,
    axis: int | None = None,
    group_size: int | None = None,
) -> QParams:
    """Return the parameters that cover low..high, ranges of one shape as QParams describes it.

    The range is widened to contain 0. The scale is hi/n - lo/n, since hi - lo can overflow.
    """
    qmin, qmax = code_range(num_bits, symmetric=symmetric)
    for end in (low, high):
        check_dense(end, "a range to quantize")
    if low.shape != high.shape or low.device != high.device:
        raise CompressionError(
            f"a range to quantize has ends of one shape and device, found {tuple(low.shape)} on "
            f"{low.device} and {tuple(high.shape)} on {high.device}"
        )
    if (low > high).any():
        raise CompressionError("a range to quantize has a lower end above its upper end")
    low, high = low.float().clamp(max=0), high.float().clamp(min=0)
    if not (torch.isfinite(low).all() and torch.isfinite(high).all()):
        raise CompressionError("a range to quantize must be finite; calibrate on finite data")
    if symmetric:
        scale = (torch.maximum(-low, high) / qmax).clamp(min=TINY)
        zero_point = torch.zeros_like(scale, dtype=torch.int32)
    else:
        steps = qmax - qmin
        scale = (high / steps - low / steps).clamp(min=TINY)
        zero_point = (qmin - torch.round(low / scale)).clamp(qmin, qmax).to(torch.int32)
    return QParams(scale, zero_point, num_bits, symmetric, axis, group_size)


def quantize(x: Tensor, qparams: QParams, *, name: str = "tensor") -> Tensor:
    """Return the codes of `x`, int8 in its shape; values beyond the range saturate.

    float16 and bfloat16 compute in float32. Raises as choose_qparams does.
    """
    _check_tensor(x, name)
    scale = _expand(qparams.scale, x, qparams)
    zero_point = _expand(qparams.zero_point, x, qparams)
    # In float32, so that a quotient beyond int32 saturates instead of wrapping round.
    codes = torch.round(x.detach().float() / scale) + zero_point
    return codes.clamp(qparams.qmin, qparams.qmax).to(torch.int8)


def dequantize(codes: Tensor, qparams: QParams) -> Tensor:
    """Return the real numbers, float32, that `codes` stand for."""
    _check_integers(codes, "codes")
    if codes.dtype in (torch.int64, torch.uint32, torch.uint64) and codes.numel():
        low, high = (int(end) for end in codes.to(torch.int64).aminmax())
        if low < _INT32.min or high > _INT32.max:
            raise CompressionError(f"codes must lie in int32's range, found {low}..{high}")
    centred = codes.to(torch.int32) - _expand(qparams.zero_point, codes, qparams)
    numbers = centred.float() * _expand(qparams.scale, codes, qparams)
    return numbers.clamp_(-_LARGEST, _LARGEST) if qparams.overflows else numbers


def check_bits(num_bits: int, name: str = "num_bits") -> None:
    """Raise CompressionError for a number of bits, the option `name`, that codes cannot have."""
    if not is_whole(num_bits) or not 2 <= num_bits <= 8:
        raise CompressionError(f"{name} must be a whole number from 2 to 8, found {num_bits!r}")


def _check_tensor(x: Tensor, name: str) -> None:
    check_dense(x, name)
    if not x.is_floating_point():
        raise UnsupportedTypeError(f"{name}: expected a floating-point tensor, found {x.dtype}")
    _check_finite(x if x.itemsize > 1 else x.float(), name)  # float8 has no isfinite


def _check_finite(x: Tensor, name: str) -> None:
    bad = int((~torch.isfinite(x)).sum())
    if bad:
        raise CompressionError(
            f"{name}: expected finite values, found {bad} of {x.numel()} NaN or infinite"
        )


def _check_integers(x: Any, name: str) -> None:
    check_dense(x, name)
    if x.is_floating_point() or x.is_complex() or x.dtype == torch.bool:
        raise UnsupportedTypeError(f"{name} must be integers, found {x.dtype}")


def _check_numbers(scale: Any, zero_point: Any) -> None:
    """Refuse what is no scale and zero point of one device."""
    check_dense(scale, "scale")
    if not scale.is_floating_point():
        raise UnsupportedTypeError(f"scale must be floating-point, found {scale.dtype}")
    _check_integers(zero_point, "zero_point")
    if scale.device != zero_point.device:
        raise CompressionError(
            f"scale and zero_point must be on one device, found {scale.device} and "
            f"{zero_point.device}"
        )


def _check_axis(x: Tensor, axis: int | None, group_size: int | None) -> None:
    if group_size is not None:
        if not is_whole(group_size) or group_size < 1:
            raise CompressionError(f"group_size must be at least 1, found {group_size!r}")
        if axis not in (None, 0) or x.ndim == 0:
            raise CompressionError("groups run along the rows: axis must be 0 or None, x not 0-dim")
    elif axis is not None and (not is_whole(axis) or not 0 <= axis < x.ndim):
        raise CompressionError(
            f"axis must lie in 0..{x.ndim - 1} for a tensor of {x.ndim} dimensions, found {axis!r}"
        )


def _ranges(x: Tensor, axis: int | None, group_size: int | None) -> tuple[Tensor, Tensor]:
    _check_axis(x, axis, group_size)
    if group_size is not None and not x.numel():
        return x.new_zeros(len(x), 1), x.new_zeros(len(x), 1)
    if group_size is not None:
        rows = x.reshape(len(x), -1)
        group_size = min(group_size, rows.shape[1])  # a row is one group then, and needs no padding
        short = -rows.shape[1] % group_size
        # Padding with 0 changes no range: 0 is in every range.
        rows = torch.nn.functional.pad(rows, (0, short)).reshape(len(x), -1, group_size)
        return rows.amin(dim=2), rows.amax(dim=2)
    if axis is not None:
        channels = x.movedim(axis, 0).reshape(x.shape[axis], -1) if x.numel() else None
        if channels is None:
            return x.new_zeros(x.shape[axis]), x.new_zeros(x.shape[axis])
        return channels.amin(dim=1), channels.amax(dim=1)
    return (x.amin(), x.amax()) if x.numel() else (x.new_zeros(()), x.new_zeros(()))


def _expand(parameter: Tensor, x: Tensor, qparams: QParams) -> Tensor:
    """Return scale or zero point in a shape that broadcasts against `x`."""
    axis, group_size = qparams.axis, qparams.group_size
    _check_axis(x, axis, group_size)
    if parameter.device != x.device:
        raise CompressionError(
            f"scale and zero_point are on {parameter.device}, the tensor is on {x.device}; move one"
        )
    if group_size is not None:
        row = x[0].numel() if len(x) else 0
        expected: tuple[int, ...] = (len(x), max(1, -(-row // group_size)))
    else:
        expected = () if axis is None else (x.shape[axis],)
    if tuple(parameter.shape) != expected:
        raise CompressionError(
            f"scale and zero_point of shape {expected} expected for a tensor of shape "
            f"{tuple(x.shape)}, found {tuple(parameter.shape)}"
        )
    if group_size is not None:
        repeats = min(group_size, max(row, 1))
        return parameter.repeat_interleave(repeats, dim=1)[:, :row].reshape(x.shape)
    if axis is not None:
        return parameter.view(-1, *[1] * (x.ndim - axis - 1))
    return parameter
