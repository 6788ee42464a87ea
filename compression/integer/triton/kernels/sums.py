"""The kernel of sums of up to three values, and of what their rounding leaves."""

import triton
import triton.language as tl

from .codes import addend, encode, places, round_whole


@triton.jit
def int8_sum(
    input, residual, third, output, rest,
    input_offsets, residual_offsets, third_offsets, output_offsets, rest_offsets,
    input_stride, residual_stride, third_stride, output_stride, rest_stride,
    input_zero, residual_zero, third_zero, input_scale, residual_ratio, third_ratio,
    rows, pixels, channels, rest_zero, output_zero, lowest, highest,
    ADDENDS: tl.constexpr, STEPS: tl.constexpr, ALIGN: tl.constexpr, OUT_ALIGN: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """Sums of ADDENDS values; where STEPS is not 0, what rounding leaves, in so many to a step, too."""
    tiles = (channels + BLOCK_N - 1) // BLOCK_N
    m = tl.program_id(0) // tiles * BLOCK_M + tl.arange(0, BLOCK_M)
    n = tl.program_id(0) % tiles * BLOCK_N + tl.arange(0, BLOCK_N)
    inside = (m < rows)[:, None] & (n < channels)[None, :]
    row = tl.minimum(m, rows - 1)
    values = addend(
        input, input_offsets, input_stride, input_zero, input_scale, row, n, inside, pixels, ALIGN
    )  # fmt: skip
    if ADDENDS > 1:
        values += addend(
            residual, residual_offsets, residual_stride, residual_zero, residual_ratio,
            row, n, inside, pixels, OUT_ALIGN,
        )  # fmt: skip
    if ADDENDS > 2:
        values += addend(
            third, third_offsets, third_stride, third_zero, third_ratio,
            row, n, inside, pixels, ALIGN,
        )  # fmt: skip
    if STEPS > 0:
        whole = round_whole(values, lowest, highest)
        left = encode(
            (values - whole) * STEPS, rest_zero,
            lowest + output_zero - rest_zero, highest + output_zero - rest_zero,
        )  # fmt: skip
        place = places(rest_offsets, rest_stride, row, pixels, OUT_ALIGN)[:, None] + n[None, :]
        tl.store(rest + place, left, mask=inside)
    place = places(output_offsets, output_stride, row, pixels, OUT_ALIGN)[:, None] + n[None, :]
    tl.store(output + place, encode(values, output_zero, lowest, highest), mask=inside)
