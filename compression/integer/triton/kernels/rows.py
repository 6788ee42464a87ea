"""Kernels that look at whole rows: LayerNorm, and softmax attention.

The formulas stand in norm.py and attention.py of compression/quantization. Their sums are of whole
numbers, exact in any order; each float is rounded as there, quotients and roots to nearest.
"""

import triton
import triton.language as tl

from .codes import encode, places


@triton.jit
def total_of(x, AXIS: tl.constexpr):
    """Return sums along an axis.

    tl.sum is itself compiled, or interpreted, as what was set when Triton was imported; tl.reduce
    follows its caller. So does `largest_of`.
    """
    return tl.reduce(x, AXIS, tl.standard._sum_combine)


@triton.jit
def largest_of(x, AXIS: tl.constexpr):
    """Return the largest along an axis."""
    return tl.reduce(x, AXIS, tl.standard._elementwise_max)


@triton.jit
def row_codes(codes, rests, begin, held, STEPS: tl.constexpr):
    """Return codes of rows as whole numbers, with what their rounding left where STEPS is not 0."""
    x = tl.load(codes + begin, mask=held, other=0).to(tl.int32)
    if STEPS > 0:
        x = x * STEPS + tl.load(rests + begin, mask=held, other=0).to(tl.int32)
    return x


@triton.jit
def int8_norm(
    input, rest, weight, bias, output, input_offsets, rest_offsets, output_offsets,
    input_stride, rest_stride, output_stride,
    rows, pixels, channels, epsilon, output_zero, lowest, highest,
    STEPS: tl.constexpr, ALIGN: tl.constexpr, OUT_ALIGN: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCKS: tl.constexpr,
):  # fmt: skip
    """LayerNorm of rows of channels, which BLOCKS blocks of BLOCK_N hold.

    Zero points cancel: mean and variance are those of the codes themselves. Where what rounding left
    of them is known, they are STEPS codes and that `rest`; STEPS is 0 elsewhere.
    """
    m = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    n = tl.arange(0, BLOCK_N)
    row = tl.minimum(m, rows - 1)
    codes = input + places(input_offsets, input_stride, row, pixels, ALIGN)[:, None] + n[None, :]
    rests = rest + places(rest_offsets, rest_stride, row, pixels, OUT_ALIGN)[:, None] + n[None, :]
    total = tl.full((BLOCK_M,), 0, tl.int32)
    squares = tl.full((BLOCK_M,), 0, tl.int64)
    for block in range(BLOCKS):
        held = (block * BLOCK_N + n < channels)[None, :] & (m < rows)[:, None]
        x = row_codes(codes, rests, block * BLOCK_N, held, STEPS)
        total += total_of(x, 1)
        if STEPS > 0:
            squares += total_of(x.to(tl.int64) * x.to(tl.int64), 1)
        else:
            squares += total_of(x * x, 1).to(tl.int64)
    spread = squares * channels - total.to(tl.int64) * total.to(tl.int64)
    ones = tl.full((BLOCK_M,), 1.0, tl.float32)
    inverse = tl.div_rn(ones, tl.sqrt_rn(spread.to(tl.float32) + epsilon))
    place = places(output_offsets, output_stride, row, pixels, OUT_ALIGN)[:, None] + n[None, :]
    for block in range(BLOCKS):
        channel = block * BLOCK_N + n
        held = (channel < channels)[None, :] & (m < rows)[:, None]
        x = row_codes(codes, rests, block * BLOCK_N, held, STEPS)
        normal = (x * channels - total[:, None]).to(tl.float32) * inverse[:, None]
        factors = tl.load(weight + channel, mask=channel < channels, other=0.0)
        shifts = tl.load(bias + channel, mask=channel < channels, other=0.0)
        found = encode(normal * factors[None, :] + shifts[None, :], output_zero, lowest, highest)
        tl.store(output + place + block * BLOCK_N, found, mask=held)


@triton.jit
def grouped(offsets, stride, group, groups, index, length, ALIGN: tl.constexpr):
    """Return where each `index` of a group's `length` pixels begins; `groups` are those of an image."""
    place = tl.load(offsets + group % groups * length + index)
    return (group // groups).to(tl.int64) * stride + tl.multiple_of(place, ALIGN)


@triton.jit
def scores(
    asked_at, keys_at, added_at, j, keys, depth, query_zero,
    LEAST: tl.constexpr, HAS_MASK: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_D: tl.constexpr, BLOCKS: tl.constexpr,
):  # fmt: skip
    """Return each query's scores with keys `j` (BLOCK_M, BLOCK_K), less what a row has in common.

    Of (q - z_q)(k - z_k) the products of z_k are the same for each key: they cancel where the row's
    largest is taken away. Beyond the last key a score is LEAST, below all others.
    """
    d = tl.arange(0, BLOCK_D)
    sums = tl.full((BLOCK_M, BLOCK_K), 0, tl.int32)
    whole = tl.full((BLOCK_K,), 0, tl.int32)
    for block in range(BLOCKS):
        at = block * BLOCK_D + d
        held = at < depth
        q = tl.load(asked_at[:, None] + at[None, :], mask=held[None, :], other=0)
        k = tl.load(keys_at[None, :] + at[:, None], mask=held[:, None], other=0)
        sums = tl.dot(q, k, sums, out_dtype=tl.int32)
        whole += total_of(k.to(tl.int32), 0)
    sums -= (whole * query_zero)[None, :]
    inside = (j < keys)[None, :]
    if HAS_MASK:
        sums += tl.load(added_at[:, None] + j[None, :], mask=inside, other=0)
    return tl.where(inside, sums, LEAST)


@triton.jit
def int8_attention(
    query, key, value, output, table, mask,
    query_offsets, key_offsets, value_offsets, output_offsets,
    query_stride, key_stride, value_stride, output_stride,
    groups, queries, keys, depth, channels, masks,
    query_zero, value_zero, rate, ratio, output_zero, lowest, highest,
    HAS_MASK: tl.constexpr, LEAST: tl.constexpr, LAST: tl.constexpr, HALF: tl.constexpr,
    ALIGN: tl.constexpr, OUT_ALIGN: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr, BLOCK_D: tl.constexpr, BLOCKS: tl.constexpr,
):  # fmt: skip
    """Softmax attention of BLOCK_M queries of a group to its keys, which are looked at twice.

    The first time finds each row's largest score, the second sums the values by their weights beside
    it: `table` (int8) holds the weight, less HALF, of what lies 0 to LAST steps below the largest.
    `mask` [masks][query][key] is added to the scores of every masks-th group.
    """
    blocks = (queries + BLOCK_M - 1) // BLOCK_M
    group = tl.program_id(0) // blocks
    m = tl.program_id(0) % blocks * BLOCK_M + tl.arange(0, BLOCK_M)
    n = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    row = tl.minimum(m, queries - 1)
    j = tl.arange(0, BLOCK_K)
    asked_at = query + grouped(query_offsets, query_stride, group, groups, row, queries, ALIGN)
    added_at = mask + (group % groups % masks * queries + row).to(tl.int64) * keys
    largest = tl.full((BLOCK_M,), LEAST, tl.int32)
    for first in range(0, keys, BLOCK_K):
        at = tl.minimum(first + j, keys - 1)
        keys_at = key + grouped(key_offsets, key_stride, group, groups, at, keys, ALIGN)
        s = scores(
            asked_at, keys_at, added_at, first + j, keys, depth, query_zero, LEAST, HAS_MASK,
            BLOCK_M, BLOCK_K, BLOCK_D, BLOCKS,
        )  # fmt: skip
        largest = tl.maximum(largest, largest_of(s, 1))
    total = tl.full((BLOCK_M,), 0, tl.int32)
    whole = tl.full((BLOCK_N,), 0, tl.int32)
    sums = tl.full((BLOCK_M, BLOCK_N), 0, tl.int32)
    for first in range(0, keys, BLOCK_K):
        at = tl.minimum(first + j, keys - 1)
        keys_at = key + grouped(key_offsets, key_stride, group, groups, at, keys, ALIGN)
        s = scores(
            asked_at, keys_at, added_at, first + j, keys, depth, query_zero, LEAST, HAS_MASK,
            BLOCK_M, BLOCK_K, BLOCK_D, BLOCKS,
        )  # fmt: skip
        steps = tl.minimum((largest[:, None] - s).to(tl.float32) * rate, LAST)
        step = ((steps + 12582912.0) - 12582912.0).to(tl.int32)  # to the nearest even, as codes are
        shares = tl.load(table + step, mask=(first + j < keys)[None, :], other=-HALF)
        total += total_of(shares.to(tl.int32) + HALF, 1)
        values_at = value + grouped(value_offsets, value_stride, group, groups, at, keys, ALIGN)
        v = tl.load(values_at[:, None] + n[None, :], mask=(n < channels)[None, :], other=0)
        sums = tl.dot(shares, v, sums, out_dtype=tl.int32)
        whole += total_of(v.to(tl.int32), 0)
    sums += (whole * HALF)[None, :] - (total * value_zero)[:, None]
    totals = tl.full((BLOCK_M, BLOCK_N), 0.0, tl.float32) + total.to(tl.float32)[:, None]
    means = tl.div_rn(sums.to(tl.float32), totals)
    found = encode(means * ratio, output_zero, lowest, highest)
    place = grouped(output_offsets, output_stride, group, groups, row, queries, OUT_ALIGN)
    inside = (m < queries)[:, None] & (n < channels)[None, :]
    tl.store(output + place[:, None] + n[None, :], found, mask=inside)
