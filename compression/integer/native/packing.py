"""Weights as the compiled kernels read them, and which pixels read the same part of their windows."""

from dataclasses import dataclass

import torch
from torch import Tensor

from compression.integer.steps import Geometry, Weights, Window
from compression.integer.steps.geometry import ALIGNMENT, aligned

BLOCK, LANES, GROUP = 64, 16, 4
"""Channels of a block, of a vector, and bytes that one instruction multiplies: step.h."""
BAND = ("first_pixel", "pixels", "first_run", "runs", "first_group", "groups")
"""The columns of a band: the fields of `struct band`, all int32."""


@dataclass(frozen=True, slots=True)
class NativeWeights(Weights):
    """A convolution's weights as convolution.h reads them, and which pixels read which part.

    `weights` (int8) are packed by `pack`; each of `runs` (offsets, int32) has `groups` of GROUP bytes;
    `bands` (int32) has a row per `struct band`.
    """

    weights: Tensor
    runs: Tensor
    groups: int
    bands: Tensor


def native_weights(
    weights: Tensor, window: Window, inputs: Geometry, outputs: list[int]
) -> tuple[NativeWeights, Tensor]:
    """Return weights (O, I, H, W) packed for a window, and the order of its output pixels."""
    runs, length = window.runs(inputs, weights.shape[1])
    codes, groups = pack(weights.permute(0, 2, 3, 1).reshape(len(weights), len(runs), length))
    order, rows = bands(window, inputs, outputs, len(runs), groups)
    return NativeWeights(codes, runs, groups, rows), order


def pack(weights: Tensor) -> tuple[Tensor, int]:
    """Pack int8 weights (channels, runs, bytes of a run) for convolution.h; return its groups too.

    [block of 64 channels][run][group of 4 bytes][channel][4]; the last block holds as many vectors
    of 16 channels as it needs, zeros after its channels and after each run.
    """
    channels, runs, length = weights.shape
    groups = -(-length // GROUP)
    wide = torch.zeros(-(-channels // LANES) * LANES, runs, groups * GROUP, dtype=torch.int8)
    wide[:channels, :, :length] = weights
    blocks = [
        part.view(len(part), runs, groups, GROUP).permute(1, 2, 0, 3).flatten()
        for part in wide.split(BLOCK)
    ]
    packed = torch.cat(blocks)
    memory = aligned(packed.numel(), torch.int8)
    assert memory.data_ptr() % ALIGNMENT == 0
    return memory.copy_(packed), groups


def bands(
    window: Window, inputs: Geometry, outputs: list[int], runs: int, groups: int
) -> tuple[Tensor, Tensor]:
    """Return the output pixels by band, and a row of BAND for each band (int32).

    A band's pixels read the same part of their windows: what lies in the border is left out where
    the border holds 0, the code whose products are 0.
    """
    rows = _inside(window, 0, inputs.height, outputs[0], inputs.zero == 0)
    whole_runs = runs == window.size[0] and inputs.channels % GROUP == 0
    columns = _inside(window, 1, inputs.width, outputs[1], inputs.zero == 0 and whole_runs)
    a_row, a_column = runs // window.size[0], groups // window.size[1]
    pixels: dict[tuple[int, ...], list[int]] = {}
    for row, (top, height) in enumerate(rows):
        for column, (left, width) in enumerate(columns):
            cut = whole_runs and height == window.size[0]  # corners alone would fill no tile
            across = (left * a_column, width * a_column) if cut else (0, groups)
            part = (top * a_row, height * a_row, *across)
            pixels.setdefault(part, []).append(row * outputs[1] + column)
    order = [pixel for members in pixels.values() for pixel in members]
    firsts = torch.tensor([0, *map(len, pixels.values())]).cumsum(0).tolist()
    rows_of_bands = [
        [first, len(members), *part]
        for first, (part, members) in zip(firsts[:-1], pixels.items(), strict=True)
    ]
    return torch.tensor(order), torch.tensor(rows_of_bands, dtype=torch.int32)


def _inside(
    window: Window, axis: int, length: int, outputs: int, cut: bool
) -> list[tuple[int, int]]:
    """Return which taps of each window lie inside an image: the first, and how many."""
    size, dilation = window.size[axis], window.dilation[axis]
    taps = []
    for place in range(outputs):
        start = place * window.stride[axis] - window.padding[axis]
        inside = [k for k in range(size) if 0 <= start + k * dilation < length]
        taps.append((inside[0], len(inside)) if cut and inside else (0, size))
    return taps
