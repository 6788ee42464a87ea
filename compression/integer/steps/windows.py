"""How a window slides over an activation: what steps read for each pixel."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from compression.integer.steps.geometry import Geometry
from compression.integer.steps.step import DepthwiseWeights
from compression.integer.windows import pair, pool_window, slide_of
from compression.quantization import modules as q


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
        columns = torch.arange(self.size[1]) * self.dilation[1] * inputs.pixel
        return (rows[:, None] + columns).int()

    def runs(self, inputs: Geometry, channels: int) -> tuple[Tensor, int]:
        """Return where a window's contiguous runs lie, and the bytes of one: a row's, or a tap's.

        It reads so many channels of each pixel: all, or those of a group.
        """
        taps = self.tap_offsets(inputs)
        if channels < inputs.channels:
            return taps.flatten(), channels
        if self.dilation[1] == 1 or self.size[1] == 1:
            return taps[:, 0].contiguous(), self.size[1] * inputs.pixel
        return taps.flatten(), inputs.pixel


def window_of(layer: nn.Module, inputs: list[int]) -> Window | None:
    """Return how `layer` slides over `inputs` (channels, rows, columns); None if it does not."""
    match layer:
        case q.QuantizedLayer() if layer.codes.ndim == 4:
            return Window(list(layer.codes.shape[2:]), *slide_of(layer))
        case q.QuantizedLayer() if layer.linear:  # a window as large as the image
            return Window(inputs[1:], [1, 1], [0, 0], [1, 1])
        case q.QuantizedLayer() if inputs[1:] == [1, 1] and layer.codes.shape[2:] == (1,):
            return Window([1, 1], [1, 1], [0, 0], [1, 1])  # one factor per channel of rows
        case q.OnCodes(function=nn.MaxPool2d() as pool):
            return Window(*pool_window(pool))
        case q.QuantizedMean(pool=nn.AvgPool2d() as pool):
            return _average_window(pool)
    return None


def mean_window(pool: nn.Module, inputs: list[int], outputs: list[int], rank: int) -> Window | None:
    """Return the window of an average of `inputs` (channels, rows, columns); None where windows differ.

    `rank` is that of the inputs, the batch included.
    """
    sides = inputs[1:]
    match pool:
        case q.MeanOver() if sorted(d % rank for d in pool.dims) == [2, 3]:
            return Window(sides, sides, [0, 0], [1, 1])
        case nn.AdaptiveAvgPool2d() if all(n % m == 0 for n, m in zip(sides, outputs, strict=True)):
            size = [n // m for n, m in zip(sides, outputs, strict=True)]
            return Window(size, size, [0, 0], [1, 1])
        case nn.AvgPool2d():
            return _average_window(pool)
    return None


def _average_window(pool: nn.AvgPool2d) -> Window | None:
    padding = pair(pool.padding)
    if pool.ceil_mode or pool.divisor_override or (any(padding) and not pool.count_include_pad):
        return None
    return Window(pair(pool.kernel_size), pair(pool.stride), padding, [1, 1])


def depthwise_weights(weights: Tensor, window: Window, inputs: Geometry) -> DepthwiseWeights:
    """Return one filter per channel (O, 1, H, W) as a depthwise product reads it."""
    return DepthwiseWeights(
        weights.flatten(1).t().contiguous(), window.tap_offsets(inputs).flatten()
    )
