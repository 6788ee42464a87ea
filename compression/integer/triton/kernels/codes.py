"""What every kernel does: it finds pixels, rounds numbers to codes, and stores them."""

import triton
import triton.language as tl


@triton.jit
def places(offsets, stride, row, pixels, ALIGN: tl.constexpr):
    """Return where each of `row` begins, a multiple of ALIGN: int64, a batch may exceed 2^31 bytes."""
    place = tl.multiple_of(tl.load(offsets + row % pixels), ALIGN)
    return (row // pixels).to(tl.int64) * stride + place


@triton.jit
def round_whole(values, lowest, highest):
    """Return the nearest whole numbers within bounds, which are whole numbers.

    1.5 x 2^23 leaves no bits for a fraction: adding it rounds to the nearest even whole number.
    """
    bounded = tl.minimum(tl.maximum(values, lowest), highest)
    return (bounded + 12582912.0) - 12582912.0


@triton.jit
def encode(values, output_zero, lowest, highest):
    """Return codes of numbers in units of the output; the bounds are whole numbers less its zero."""
    return (round_whole(values, lowest, highest).to(tl.int32) + output_zero).to(tl.int8)


@triton.jit
def addend(
    memory, offsets, stride, zero, ratio, row, n, inside, pixels, ALIGN: tl.constexpr
):  # fmt: skip
    """Return how far codes lie from their zero, times a ratio."""
    place = places(offsets, stride, row, pixels, ALIGN)[:, None] + n[None, :]
    codes = tl.load(memory + place, mask=inside, other=0).to(tl.int32)
    return (codes - zero).to(tl.float32) * ratio


@triton.jit
def finish(
    values, inside, row, n, pixels,
    residual, residual_offsets, residual_stride, residual_zero, residual_ratio,
    output, output_offsets, output_stride, output_zero, lowest, highest,
    HAS_RESIDUAL: tl.constexpr, REAL: tl.constexpr, ALIGN: tl.constexpr,
):  # fmt: skip
    """Add a residual to numbers in units of the output, and store them, or their codes."""
    if HAS_RESIDUAL:
        values += addend(
            residual, residual_offsets, residual_stride, residual_zero, residual_ratio,
            row, n, inside, pixels, ALIGN,
        )  # fmt: skip
    place = places(output_offsets, output_stride, row, pixels, ALIGN)[:, None] + n[None, :]
    if REAL:
        tl.store(output + place, values, mask=inside)
    else:
        tl.store(output + place, encode(values, output_zero, lowest, highest), mask=inside)
