"""What the kernels of whole rows are launched with, and that of sums between them."""

from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from compression.integer.steps import Attention, Norm, Place, Sum
from compression.integer.triton.arguments import bounds, power_of_two
from compression.quantization.attention import LAST, TABLE
from compression.quantization.sums import REST_STEPS

LEAST = -(2**30)
"""Below every score: a mask takes 2^29 away, products of MOST_CHANNELS channels less than 2^28."""
HALF = 128
"""What is taken from a weight, so that it is an int8."""
NORM_TILE, NORM_CHANNELS = 2048, 1024
"""Codes that a program of LayerNorm looks at together, and of one row at most."""
SUM_TILE = 2048
"""Codes that a program of sums looks at."""
QUERIES, KEYS, CHANNELS = 64, 64, 128
"""The largest tile of attention; tensor cores take no fewer than 16 queries, 32 keys and channels."""


class Call(NamedTuple):
    """A kernel by its name, how many programs it takes, and what they are given."""

    kernel: str
    grid: tuple[int, int]
    args: list[Any]
    named: dict[str, Any]


def call_of(step: Norm | Attention | Sum, images: int) -> Call:
    """Return what computes a step for so many images."""
    match step:
        case Norm():
            return _norm(step, images)
        case Sum():
            return _sum(step, images)
    return _attention(step, images)


def _sum(step: Sum, images: int) -> Call:
    assert isinstance(step.output, Place)
    addends = [place for place in (step.residual, step.third) if place is not None]
    residual, third = (*addends, None, None)[:2]
    read, rest = (step.input, residual or step.input, third or step.input), step.rest or step.output
    places = (*read, step.output, rest)
    ratios = [step.scale, *(0.0 if a is None else a.ratio for a in (residual, third))]
    rows, block = images * step.pixels, _block(16, step.channels, CHANNELS)
    together = SUM_TILE // block
    args = [
        *[p.memory for p in places], *[p.offsets for p in places], *[p.stride for p in places],
        *[p.zero for p in read], *ratios, rows, step.pixels, step.channels, rest.zero,
    ]  # fmt: skip
    sizes = {
        "ADDENDS": 1 + len(addends), "STEPS": REST_STEPS if step.rest else 0,
        "BLOCK_M": together, "BLOCK_N": block,
    }  # fmt: skip
    grid = -(-rows // together) * -(-step.channels // block), 1
    return Call("int8_sum", grid, args, bounds(step) | sizes)


def _norm(step: Norm, images: int) -> Call:
    assert isinstance(step.output, Place)
    rest = step.residual or step.input
    rows, block = images * step.pixels, _block(16, step.channels, NORM_CHANNELS)
    together = NORM_TILE // block
    args = [
        step.input.memory, rest.memory, step.weight, step.bias, step.output.memory,
        *[p.offsets for p in (step.input, rest, step.output)],
        *[p.stride for p in (step.input, rest, step.output)],
        rows, step.pixels, step.channels, step.epsilon,
    ]  # fmt: skip
    sizes = {
        "STEPS": 0 if step.residual is None else REST_STEPS,
        "BLOCK_M": together, "BLOCK_N": block, "BLOCKS": -(-step.channels // block),
    }  # fmt: skip
    return Call("int8_norm", (-(-rows // together), 1), args, bounds(step) | sizes)


def _attention(step: Attention, images: int) -> Call:
    assert isinstance(step.output, Place)
    places = (step.input, step.key, step.value, step.output)
    table = shares(step.output.memory.device)
    sizes = {
        "BLOCK_M": _block(16, step.queries, QUERIES), "BLOCK_K": _block(32, step.keys, KEYS),
        "BLOCK_N": _block(32, step.channels, CHANNELS), "BLOCK_D": _block(32, step.depth, CHANNELS),
    }  # fmt: skip
    groups = step.pixels // step.queries
    tiles = images * groups * -(-step.queries // sizes["BLOCK_M"])
    args = [
        *[p.memory for p in places], table, table if step.mask is None else step.mask,
        *[p.offsets for p in places], *[p.stride for p in places],
        groups, step.queries, step.keys, step.depth, step.channels,
        1 if step.mask is None else len(step.mask), step.input.zero, step.value.zero,
        step.rate, step.ratio,
    ]  # fmt: skip
    named = bounds(step) | sizes | {
        "HAS_MASK": step.mask is not None, "LEAST": LEAST, "LAST": float(LAST), "HALF": HALF,
        "BLOCKS": -(-step.depth // sizes["BLOCK_D"]),
        "num_warps": 8 if CHANNELS in sizes.values() else 4,  # with 4 a wide head's registers spill
    }  # fmt: skip
    return Call("int8_attention", (tiles, -(-step.channels // sizes["BLOCK_N"])), args, named)


@cache
def shares(device: torch.device) -> Tensor:
    """Return the weights of the softmax's table as int8: less HALF."""
    return (TABLE - HALF).to(torch.int8).to(device)


def _block(least: int, number: int, most: int) -> int:
    return min(most, max(least, power_of_two(number)))
