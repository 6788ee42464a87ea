"""How a window slides over an activation: what steps read for each pixel, and packed weights."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from compression.integer.kernels import pair, pool_window, sliding
from compression.integer.native.step import ALIGNMENT, Geometry, aligned
from compression.quantization import modules as q

BLOCK, LANES, GROUP = 64, 16, 4
"""Channels of a block, of a vector, and bytes that one instruction multiplies: step.h."""


@dataclass(frozen=True, slots=True)
class Window:
    """A kernel's size, stride, padding and dilation, each as (rows, columns)."""

    size: list[int]
    stride: list[int]
    padding: list[int]
    dilation: list[int]

    def border(self, height: int, width: int, outputs: list[int]) -> int:
        """Return how far the windows of `outputs` (rows, columns) reach beyond an image."""
        beyond = [
            (n - 1) * s - p + d * (k - 1) - (length - 1)
            for n, s, p, d, k, length in zip(
                outputs, self.stride, self.padding, self.dilation, self.size,
                (height, width), strict=True,
            )
        ]  # fmt: skip
        return max(0, *self.padding, *beyond)

    def pixel_offsets(self, inputs: Geometry, outputs: list[int]) -> Tensor:
        """Return where the window of each output pixel begins."""
        places = [
            torch.arange(n) * s - p
            for n, s, p in zip(outputs, self.stride, self.padding, strict=True)
        ]
        return inputs.offsets(*places)

    def tap_offsets(self, inputs: Geometry) -> Tensor:
        """Return where each tap of a window lies, from its beginning, row by row (int32)."""
        rows = torch.arange(self.size[0]) * self.dilation[0] * inputs.row
        columns = torch.arange(self.size[1]) * self.dilation[1] * inputs.channels
        return (rows[:, None] + columns).int()

    def runs(self, inputs: Geometry) -> tuple[Tensor, int]:
        """Return where a window's contiguous runs lie, and the bytes of one: a row's, or a tap's."""
        taps = self.tap_offsets(inputs)
        if self.dilation[1] == 1 or self.size[1] == 1:
            return taps[:, 0].contiguous(), self.size[1] * inputs.channels
        return taps.flatten(), inputs.channels

    def bands(
        self, inputs: Geometry, outputs: list[int], runs: int, groups: int
    ) -> tuple[Tensor, Tensor]:
        """Return the output pixels by band, and each band's first pixel, pixels, first run, runs,
        first group of bytes and groups (int32).

        A band's pixels read the same part of their windows: what lies in the border is left out where
        the border holds 0, the code whose products are 0.
        """
        rows = self._inside(0, inputs.height, outputs[0], inputs.zero == 0)
        whole_runs = runs == self.size[0] and inputs.channels % GROUP == 0
        columns = self._inside(1, inputs.width, outputs[1], inputs.zero == 0 and whole_runs)
        a_row, a_column = runs // self.size[0], groups // self.size[1]
        pixels: dict[tuple[int, ...], list[int]] = {}
        for row, (top, height) in enumerate(rows):
            for column, (left, width) in enumerate(columns):
                cut = whole_runs and height == self.size[0]  # corners alone would fill no tile
                across = (left * a_column, width * a_column) if cut else (0, groups)
                part = (top * a_row, height * a_row, *across)
                pixels.setdefault(part, []).append(row * outputs[1] + column)
        order = [pixel for members in pixels.values() for pixel in members]
        firsts = torch.tensor([0, *map(len, pixels.values())]).cumsum(0).tolist()
        bands = [
            [first, len(members), *part]
            for first, (part, members) in zip(firsts[:-1], pixels.items(), strict=True)
        ]
        return torch.tensor(order), torch.tensor(bands, dtype=torch.int32)

    def _inside(self, axis: int, length: int, outputs: int, cut: bool) -> list[tuple[int, int]]:
        """Return which taps of each window lie inside an image: the first, and how many."""
        size, dilation = self.size[axis], self.dilation[axis]
        found = []
        for place in range(outputs):
            start = place * self.stride[axis] - self.padding[axis]
            inside = [k for k in range(size) if 0 <= start + k * dilation < length]
            found.append((inside[0], len(inside)) if cut and inside else (0, size))
        return found


def window_of(layer: nn.Module, inputs: list[int]) -> Window | None:
    """Return how `layer` slides over `inputs` (channels, rows, columns); None if it does not."""
    match layer:
        case q.QuantizedLayer() if layer.codes.ndim == 4:
            return Window(list(layer.codes.shape[2:]), *sliding(layer))
        case q.QuantizedLayer():  # of a flattened image: a window as large as the image
            return Window(inputs[1:], [1, 1], [0, 0], [1, 1])
        case q.OnCodes(function=nn.MaxPool2d() as pool):
            return Window(*pool_window(pool))
    return None


def mean_window(pool: nn.Module, inputs: list[int], outputs: list[int]) -> Window | None:
    """Return the window of an average of `inputs` (channels, rows, columns); None for one that pads.

    None, too, where not all windows are alike.
    """
    sides = inputs[1:]
    match pool:
        case nn.AdaptiveAvgPool2d() if all(n % m == 0 for n, m in zip(sides, outputs, strict=True)):
            size = [n // m for n, m in zip(sides, outputs, strict=True)]
            return Window(size, size, [0, 0], [1, 1])
        case nn.AvgPool2d(padding=0 | (0, 0), ceil_mode=False, divisor_override=None):
            return Window(pair(pool.kernel_size), pair(pool.stride), [0, 0], [1, 1])
    return None


def convolution_fields(
    weights: Tensor, window: Window, inputs: Geometry, outputs: list[int]
) -> dict[str, Any]:
    """Return a convolution's fields, and the order of its output pixels; weights are (O, I, H, W)."""
    runs, length = window.runs(inputs)
    packed, groups = pack(weights.permute(0, 2, 3, 1).reshape(len(weights), len(runs), length))
    order, bands = window.bands(inputs, outputs, len(runs), groups)
    return {
        "weights": packed, "run_offsets": runs, "runs": len(runs), "groups": groups,
        "bands": bands, "band_count": len(bands), "order": order,
    }  # fmt: skip


def depthwise_fields(
    weights: Tensor, window: Window, inputs: Geometry, outputs: list[int]
) -> dict[str, Any]:
    """Return the fields of a filter a channel, and the order of its output pixels."""
    taps = window.tap_offsets(inputs).flatten()
    packed = weights.flatten(1).t().contiguous()
    order = torch.arange(outputs[0] * outputs[1])
    return {"weights": packed, "run_offsets": taps, "runs": len(taps), "order": order}


def pack(weights: Tensor) -> tuple[Tensor, int]:
    """Pack int8 weights (channels, runs, bytes of a run) for convolution.h; return its groups too.

    [block of 64 channels][run][group of 4 bytes][channel][4]; the last block holds as many vectors
    of 16 channels as it needs, zeros behind its channels and behind each run.
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


def padded(values: Tensor) -> Tensor:
    """Return a row of values with zeros behind it, so that whole blocks can be read."""
    return torch.nn.functional.pad(values, (0, BLOCK)).contiguous()
