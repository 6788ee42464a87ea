"""Filters of one channel each as depthwise.h reads them: four rows at a time, interleaved."""

from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor
from torch.nn import functional as F

from compression.integer.native.packing import BLOCK, GROUP, native_weights
from compression.integer.steps import Geometry, Weights, Window, is_depthwise
from compression.integer.steps.geometry import aligned


@dataclass(frozen=True, slots=True)
class NativeDepthwise(Weights):
    """One filter per channel as depthwise.h reads it.

    `weights` (int8) are `filters` (channels, rows, columns), packed by `pack_depthwise`; `rows`
    (offsets, int32) are those of a window, four at a time: the last is repeated, times weights of 0.
    Each has `columns`, `column` bytes apart. `across` counts the pixels of an output's row, `channels`
    those of a pixel.
    """

    filters: Tensor
    weights: Tensor
    rows: Tensor
    columns: int
    column: int
    across: int
    channels: int

    def repeated(self, times: int) -> Self:
        """Return the filters of so many neighbouring pixels, as those of one."""
        filters = self.filters.repeat(times, 1, 1)
        return replace(
            self, filters=filters, weights=pack_depthwise(filters), across=self.across // times,
            channels=self.channels * times,
        )  # fmt: skip

    def by_block(self, vector: Tensor) -> Tensor:
        """Return a number per channel in the order of the kernel's sums."""
        return in_blocks(vector[:, None], self.channels).flatten()


def pack_filters(
    weights: Tensor,
    groups: int,
    window: Window,
    inputs: Geometry,
    outputs: list[int],
    *,
    tiles: bool = False,
) -> tuple[Weights, Tensor | None] | None:
    """Return weights (O, I, D, H, W) packed for a kernel of their kind, and the order of pixels."""
    if is_depthwise(weights, groups, inputs):
        return native_depthwise(weights, window, inputs, outputs), None
    return native_weights(weights, groups, window, inputs, outputs, tiles=tiles)


def native_depthwise(
    weights: Tensor, window: Window, inputs: Geometry, outputs: list[int]
) -> NativeDepthwise:
    """Return one filter per channel (O, 1, D, H, W) packed for a window."""
    rows = window.tap_offsets(inputs)[..., 0].flatten().contiguous()
    repeated = rows[torch.arange(-(-len(rows) // GROUP) * GROUP).clamp_(max=len(rows) - 1)]
    column = window.dilation[-1] * inputs.pixel
    filters = weights.flatten(1, -2)
    return NativeDepthwise(
        filters,
        pack_depthwise(filters),
        repeated,
        filters.shape[2],
        column,
        outputs[-1],
        len(filters),
    )


def pack_depthwise(weights: Tensor) -> Tensor:
    """Pack int8 weights (channels, rows, columns) for depthwise.h, with zeros after the last row.

    [block of 64 channels][four rows][column][interleaved channel][row].
    """
    channels, rows, columns = weights.shape
    wide = F.pad(weights, (0, 0, 0, -rows % GROUP)).view(channels, -1, GROUP, columns)
    blocks = in_blocks(wide.flatten(1), channels).view(-1, BLOCK, *wide.shape[1:])
    packed = blocks.permute(0, 2, 4, 1, 3).flatten()
    return aligned(packed.numel(), torch.int8).copy_(packed)


def in_blocks(rows: Tensor, channels: int) -> Tensor:
    """Return a row per channel as rows of blocks of 64, each in the order of interleaved bytes.

    The last block ends with the last channel; a single one is filled up with zeros.
    """
    rows = F.pad(rows, (0, 0, 0, max(0, BLOCK - channels)))
    firsts = torch.arange(0, channels, BLOCK).clamp_(max=max(0, channels - BLOCK))
    order = torch.arange(BLOCK).view(GROUP, GROUP, GROUP).transpose(0, 1).flatten()
    return rows[(firsts[:, None] + order).flatten()]
