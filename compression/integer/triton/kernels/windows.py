"""Kernels that slide windows over pixels, and the one that makes codes of real numbers."""

import triton
import triton.language as tl

from .codes import encode, finish, places


@triton.jit
def int8_convolution(
    input, weights, bias, multiplier, residual, output, workspace, arrivals,
    input_offsets, residual_offsets, output_offsets,
    input_stride, residual_stride, output_stride,
    rows, pixels, channels,
    across, high, back, down, right, run_blocks, blocks,
    residual_zero, residual_ratio, output_zero, lowest, highest,
    HAS_RESIDUAL: tl.constexpr, REAL: tl.constexpr, ALIGN: tl.constexpr, OUT_ALIGN: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, SPLITS: tl.constexpr,
):  # fmt: skip
    """Implicit GEMM: rows x channels of int32 sums over the runs of a window, then the epilogue.

    A run, bytes that lie side by side, takes `run_blocks` blocks of BLOCK_K. Run r is of line
    r // across, and begins (line // high) back + (line % high) down + (r % across) right from the
    window's corner. `blocks` blocks are shared among SPLITS programs, which add up in `workspace`; the
    last to arrive finishes, and clears it.
    """
    tile = tl.program_id(0)
    split = tl.program_id(1)
    tiles = (channels + BLOCK_N - 1) // BLOCK_N
    m = tile // tiles * BLOCK_M + tl.arange(0, BLOCK_M)
    n = tile % tiles * BLOCK_N + tl.arange(0, BLOCK_N)
    inside = (m < rows)[:, None] & (n < channels)[None, :]
    row = tl.minimum(m, rows - 1)
    channel = tl.minimum(n, channels - 1)
    start = places(input_offsets, input_stride, row, pixels, ALIGN)
    k = tl.arange(0, BLOCK_K)
    codes = input + start[:, None] + k[None, :]
    filters = weights + channel.to(tl.int64)[None, :] * (blocks * BLOCK_K) + k[:, None]
    sums = tl.full((BLOCK_M, BLOCK_N), 0, tl.int32)
    share = (blocks + SPLITS - 1) // SPLITS
    for block in range(split * share, tl.minimum(split * share + share, blocks)):
        run = block // run_blocks
        line = run // across
        corner = line // high * back + line % high * down + run % across * right
        begin = corner + block % run_blocks * BLOCK_K
        a = tl.load(codes + tl.multiple_of(begin, ALIGN))
        b = tl.load(filters + block * BLOCK_K)
        sums = tl.dot(a, b, sums, out_dtype=tl.int32)
    if SPLITS > 1:
        place = workspace + m.to(tl.int64)[:, None] * channels + n[None, :]
        tl.atomic_add(place, sums, mask=inside, sem="relaxed")
        tl.debug_barrier()
        last = tl.atomic_add(arrivals + tile, 1) == SPLITS - 1
        inside = inside & last
        sums = tl.load(place, mask=inside, other=0, cache_modifier=".cg")
        tl.debug_barrier()  # a thread may clear what another one reads
        tl.store(place, tl.full((BLOCK_M, BLOCK_N), 0, tl.int32), mask=inside)
        tl.store(arrivals + tile, 0, mask=last)
    sums += tl.load(bias + n, mask=n < channels, other=0)[None, :]
    values = sums.to(tl.float32) * tl.load(multiplier + n, mask=n < channels, other=0)[None, :]
    finish(
        values, inside, row, n, pixels,
        residual, residual_offsets, residual_stride, residual_zero, residual_ratio,
        output, output_offsets, output_stride, output_zero, lowest, highest,
        HAS_RESIDUAL, REAL, OUT_ALIGN,
    )  # fmt: skip


@triton.jit
def int8_pointwise(
    input, weights, bias, multiplier, residual, output, run_offsets,
    input_offsets, residual_offsets, output_offsets,
    input_stride, residual_stride, output_stride,
    rows, pixels, channels, runs, groups, width,
    input_zero, input_scale, residual_zero, residual_ratio, output_zero, lowest, highest,
    KIND: tl.constexpr, HAS_RESIDUAL: tl.constexpr, REAL: tl.constexpr,
    ALIGN: tl.constexpr, OUT_ALIGN: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """What multiplies no matrices, channel by channel: a window's sum, largest code or mean.

    KIND: "depthwise" sums over `runs` taps with weights [tap][channel]; "maximum" looks at them;
    "mean" sums over `runs` rows of `groups` pixels of `width` bytes; "map" takes one pixel;
    "multiplication" its product with the residual's; "lookup" finds its code in `weights`, a table;
    "gather" takes each channel from an offset of its own, `width` of them per pixel, or 0;
    "interpolation" weighs four neighbours by pairs of weights for `width` columns, then for the rows.
    """
    tiles = (channels + BLOCK_N - 1) // BLOCK_N
    m = tl.program_id(0) // tiles * BLOCK_M + tl.arange(0, BLOCK_M)
    n = tl.program_id(0) % tiles * BLOCK_N + tl.arange(0, BLOCK_N)
    held = n < channels
    inside = (m < rows)[:, None] & held[None, :]
    row = tl.minimum(m, rows - 1)
    start = input + places(input_offsets, input_stride, row, pixels, ALIGN)[:, None]
    codes = start + n[None, :]
    if KIND == "gather":
        taps = run_offsets + (row % pixels)[:, None] * width + n[None, :]
        codes = start + tl.load(taps, mask=inside, other=0)
    sums = tl.full((BLOCK_M, BLOCK_N), -128 if KIND == "maximum" else 0, tl.int32)
    for run in range(runs):
        begin = 0
        if KIND != "gather":
            begin = tl.multiple_of(tl.load(run_offsets + run), ALIGN)
        for group in range(groups):
            at = tl.multiple_of(begin + group * width, ALIGN)
            x = tl.load(codes + at, mask=inside, other=0).to(tl.int32)
            if KIND == "maximum":
                sums = tl.maximum(sums, x)
            elif KIND == "depthwise":
                filters = tl.load(weights + run * channels + n, mask=held, other=0)
                sums += x * filters.to(tl.int32)[None, :]
            elif KIND == "interpolation":
                pixel = row % pixels
                across = tl.load(weights + 2 * (pixel % width) + run % 2)
                down = tl.load(weights + 2 * (width + pixel // width) + run // 2)
                sums += x * (across * down)[:, None]
            else:
                sums += x
    if KIND == "lookup":
        sums = tl.load(weights + sums + 128, mask=inside, other=0).to(tl.int32)
    if KIND == "maximum" or KIND == "lookup" or KIND == "gather":
        place = places(output_offsets, output_stride, row, pixels, OUT_ALIGN)
        tl.store(output + place[:, None] + n[None, :], sums.to(tl.int8), mask=inside)
    else:
        if KIND == "depthwise":
            sums += tl.load(bias + n, mask=held, other=0)[None, :]
            values = sums.to(tl.float32) * tl.load(multiplier + n, mask=held, other=0)[None, :]
        elif KIND == "interpolation":
            whole = (sums - input_zero * 4194304).to(tl.float32)
            means = whole * 2.384185791015625e-07  # 2^-22, exact
            values = means * input_scale
        else:
            count = tl.full((BLOCK_M, BLOCK_N), 1, tl.int32) * (runs * groups)
            means = (sums - count * input_zero).to(tl.float32)
            if KIND == "multiplication":
                other = places(residual_offsets, residual_stride, row, pixels, OUT_ALIGN)
                y = tl.load(residual + other[:, None] + n[None, :], mask=inside, other=0)
                means *= (y.to(tl.int32) - residual_zero).to(tl.float32)
            values = tl.div_rn(means, count.to(tl.float32)) * input_scale
        finish(
            values, inside, row, n, pixels,
            residual, residual_offsets, residual_stride, residual_zero, residual_ratio,
            output, output_offsets, output_stride, output_zero, lowest, highest,
            HAS_RESIDUAL, REAL, OUT_ALIGN,
        )  # fmt: skip


@triton.jit
def int8_quantize(
    input, output, output_offsets, output_stride,
    rows, pixels, channels, pixel_step, channel_step,
    input_scale, output_zero, lowest, highest,
    PIXEL: tl.constexpr, OUT_ALIGN: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """Real inputs -> codes (NHWC); what fills a pixel of PIXEL bytes is the code of 0.

    An image's numbers lie `pixel_step` and `channel_step` apart: channel by channel, or tokens. What
    is not a number counts as 0.
    """
    m = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    n = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    inside = (m < rows)[:, None] & (n < channels)[None, :]
    image = (m // pixels).to(tl.int64)
    start = image * channels * pixels + m % pixels * pixel_step
    reals = tl.load(input + start[:, None] + n[None, :] * channel_step, mask=inside, other=0.0)
    reals = tl.where(reals == reals, reals, 0.0)
    scale = tl.full((BLOCK_M, BLOCK_N), 1.0, tl.float32) * input_scale
    codes = encode(tl.div_rn(reals, scale), output_zero, lowest, highest)
    place = places(output_offsets, output_stride, tl.minimum(m, rows - 1), pixels, OUT_ALIGN)
    tl.store(
        output + place[:, None] + n[None, :],
        codes,
        mask=(m < rows)[:, None] & (n < PIXEL)[None, :],
    )
