"""Weights as the compiled kernels read them, and which pixels read the same part of their windows."""

from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor
from torch.nn import functional as F

from compression.integer.steps import Geometry, Weights, Window
from compression.integer.steps.geometry import ALIGNMENT, aligned

BLOCK, LANES, GROUP = 64, 16, 4
"""Channels of a block, of a vector, and bytes that one instruction multiplies: step.h."""
READ_AHEAD = 48
"""Bytes after a pixel's last code that the weights of groups that do not exist, zeros, may meet."""
BAND = ("first_pixel", "pixels", "first_run", "runs", "first_group", "groups")
"""The columns of a band: the fields of `struct band`, all int32."""


@dataclass(frozen=True, slots=True)
class NativeWeights(Weights):
    """A convolution's weights as convolution.h reads them, and which pixels read which part.

    `weights` (int8) are packed by `pack`; each of `runs` (offsets, int32) has `groups` of GROUP bytes;
    `bands` (int32) has a row per `struct band`. Each `slice` of the outputs reads its codes
    `slice_input` bytes after those of the one before. `column` is how many bytes of a run one column
    of the window has.
    """

    weights: Tensor
    runs: Tensor
    groups: int
    bands: Tensor
    slice: int = BLOCK
    slice_input: int = 0
    column: int = 0

    @property
    def run_bytes(self) -> int:
        """Return the bytes that are read of each run."""
        return GROUP * self.groups


@dataclass(frozen=True, slots=True)
class GroupedWeights(NativeWeights):
    """The weights of groups of 4 or 8 channels as grouped.h reads them: `groups` counts their parts."""

    @property
    def run_bytes(self) -> int:
        """Return the bytes that are read of each tap: as many as channels are written."""
        return self.slice


def native_weights(
    weights: Tensor,
    groups: int,
    window: Window,
    inputs: Geometry,
    outputs: list[int],
    *,
    tiles: bool = False,
) -> tuple[NativeWeights, Tensor] | None:
    """Return weights (O, I, D, H, W) packed for a window, and the order of its output pixels.

    Small groups are multiplied together, with zeros. For the `tiles` of AMX more of them, which fill a
    block, and all pixels are of one band, row by row: rows of codes are read where they lie. None where
    a group has more outputs than a block, or where the last slice, of fewer groups, would read far
    beyond a pixel.
    """
    if is_grouped(weights, groups):
        return _grouped_weights(weights, window, inputs, outputs)
    of_group = len(weights) // groups
    together = min(groups, -(-LANES // of_group))
    if tiles:
        together = min(groups, max(1, BLOCK // of_group))
    beyond = -groups % together * weights.shape[1]
    if groups > 1 and (together * of_group > BLOCK or beyond > READ_AHEAD):
        return None
    wide = _together(weights, groups, together)
    runs, length = window.runs(inputs, wide.shape[1])
    own = together * of_group if groups > 1 else even_slice(of_group)
    codes, fours = pack(wide.movedim(1, -1).reshape(len(wide), len(runs), length), own)
    order, rows = bands(window, inputs, outputs, len(runs), fours, cut=not tiles)
    advance = wide.shape[1] if groups > 1 else 0
    column = wide.shape[1] if length % wide.shape[1] == 0 else length
    return NativeWeights(codes, runs, fours, rows, own, advance, column), order


def is_grouped(weights: Tensor, groups: int) -> bool:
    """Tell whether grouped.h has a kernel for weights (O, I of a group, D, H, W)."""
    channels, of_group = weights.shape[:2]
    whole = {4: BLOCK, 8: of_group}.get(of_group)
    return whole is not None and channels == groups * of_group and channels % whole == 0


def _grouped_weights(
    weights: Tensor, window: Window, inputs: Geometry, outputs: list[int]
) -> tuple[GroupedWeights, Tensor]:
    """Return the weights of groups of 4 or 8 channels, and the order of its output pixels."""
    parts = weights.shape[1] // GROUP
    own = BLOCK // parts
    taps = window.tap_offsets(inputs).flatten()
    order, rows = bands(window, inputs, outputs, len(taps), parts)
    return GroupedWeights(pack_groups(weights, own), taps, parts, rows, own, own), order


def pack_groups(weights: Tensor, own: int) -> Tensor:
    """Pack int8 weights (O, 4 or 8, D, H, W) of groups of as many channels for grouped.h.

    [slice of `own` channels][tap][16 channels][part][lane][4]: lane 4 q + d of part f is of bytes 4 d
    to 4 d + 3 of these 16, and of channel 4 f + q of their group; zeros where channels end.
    """
    of_group = weights.shape[1]
    parts, groups = of_group // GROUP, LANES // of_group
    wide = F.pad(weights.flatten(2), (0, 0, 0, 0, 0, -len(weights) % LANES))
    # 16 channels, group, f, q, quarter of its bytes, byte, tap
    split = wide.view(-1, groups, parts, GROUP, parts, GROUP, wide.shape[2])
    packed = split.permute(6, 0, 2, 3, 1, 4, 5).flatten(2)  # tap, 16 channels, the rest
    slices = packed.split(own // LANES, dim=1)
    flat = torch.cat([part.flatten() for part in slices])
    return aligned(flat.numel(), torch.int8).copy_(flat)


def _together(weights: Tensor, groups: int, together: int) -> Tensor:
    """Return the weights of several groups as those of one, with zeros at the others' inputs."""
    if together == 1:
        return weights
    inputs = weights.shape[1]
    wide = weights.new_zeros(len(weights), together * inputs, *weights.shape[2:])
    for group, (own, all_own) in enumerate(
        zip(weights.chunk(groups), wide.chunk(groups), strict=True)
    ):
        first = group % together * inputs
        all_own[:, first : first + inputs] = own
    return wide


def even_slice(channels: int) -> int:
    """Return how many channels a slice has: as few slices as blocks, whose vectors are even.

    A last slice of one vector would read a pixel's codes once for 16 channels.

    >>> [even_slice(channels) for channels in (10, 64, 80, 128, 144, 1000)]
    [16, 64, 48, 64, 48, 64]
    """
    vectors = -(-channels // LANES)
    slices = -(-channels // BLOCK)
    return LANES * -(-vectors // slices)


def pack(weights: Tensor, own: int = BLOCK) -> tuple[Tensor, int]:
    """Pack int8 weights (channels, runs, bytes of a run) for convolution.h; return its groups too.

    [slice of `own` channels][run][group of 4 bytes][channel][4]; each slice holds as many vectors of
    16 channels as it needs, zeros after its channels and after each run.
    """
    _, runs, length = weights.shape
    groups = -(-length // GROUP)
    blocks = [
        F.pad(part, (0, groups * GROUP - length, 0, 0, 0, -len(part) % LANES))
        .view(-1, runs, groups, GROUP)
        .permute(1, 2, 0, 3)
        .flatten()
        for part in weights.split(own)
    ]
    packed = torch.cat(blocks)
    memory = aligned(packed.numel(), torch.int8)
    assert memory.data_ptr() % ALIGNMENT == 0
    return memory.copy_(packed), groups


def bands(
    window: Window,
    inputs: Geometry,
    outputs: list[int],
    runs: int,
    groups: int,
    *,
    cut: bool = True,
) -> tuple[Tensor, Tensor]:
    """Return the output pixels by band, and a row of BAND for each band (int32).

    A band's pixels read the same part of their windows: with `cut` what lies in the border is left out
    where the border holds 0, the code whose products are 0.
    """
    cut = cut and inputs.zero == 0
    in_all = window.size[0] * window.size[1]
    whole_runs = runs == in_all and inputs.channels % GROUP == 0
    frames, rows, columns = (
        _inside(window, axis, inputs.sides[1 + axis], outputs[axis], cut and may)
        for axis, may in enumerate((True, True, whole_runs))
    )
    a_row, a_column = runs // in_all, groups // window.size[2]
    pixels: dict[tuple[int, ...], list[int]] = {}
    for line, (frame, row) in enumerate(product(frames, rows)):
        top, height = _one_after_the_other(frame, row, window.size[1])
        for column, (left, width) in enumerate(columns):
            whole = whole_runs and height == in_all  # corners alone would fill no tile
            across = (left * a_column, width * a_column) if whole else (0, groups)
            part = (top * a_row, height * a_row, *across)
            pixels.setdefault(part, []).append(line * outputs[2] + column)
    order = [pixel for members in pixels.values() for pixel in members]
    firsts = torch.tensor([0, *map(len, pixels.values())]).cumsum(0).tolist()
    rows_of_bands = [
        [first, len(members), *part]
        for first, (part, members) in zip(firsts[:-1], pixels.items(), strict=True)
    ]
    return torch.tensor(order), torch.tensor(rows_of_bands, dtype=torch.int32)


def _one_after_the_other(
    frames: tuple[int, int], rows: tuple[int, int], of_frame: int
) -> tuple[int, int]:
    """Return which rows of a window are read: those of several frames follow one another if whole."""
    (front, count), (top, height) = frames, rows
    if count > 1:
        top, height = 0, of_frame
    return front * of_frame + top, (count - 1) * of_frame + height


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
