"""How a window slides over an activation: what steps read for each pixel."""

from dataclasses import dataclass, replace
from itertools import product
from math import gcd
from typing import Any

import torch
from torch import Tensor, nn

from compression.integer.steps.axes import DIMS, EITHER
from compression.integer.steps.geometry import Geometry
from compression.integer.steps.step import DepthwiseWeights
from compression.integer.windows import POOL_DIMS, each, pool_window, slide_of
from compression.quantization import modules as q


@dataclass(frozen=True, slots=True)
class Window:
    """A kernel's size, stride, padding and dilation, each as (frames, rows, columns)."""

    size: list[int]
    stride: list[int]
    padding: list[int]
    dilation: list[int]

    def border(self, inputs: list[int], outputs: list[int]) -> tuple[int, int, int]:
        """Return how far windows reach beyond `inputs` (frames, rows and columns, as all sides)."""
        back, down, right = (
            max(0, p, (n - 1) * s - p + d * (k - 1) - (length - 1))
            for n, s, p, d, k, length in zip(
                outputs, self.stride, self.padding, self.dilation, self.size, inputs, strict=True
            )
        )
        return back, down, right

    def pixel_offsets(self, inputs: Geometry, outputs: list[int]) -> Tensor:
        """Return where the window of each output pixel begins."""
        places = [
            torch.arange(n) * s - p
            for n, s, p in zip(outputs, self.stride, self.padding, strict=True)
        ]
        return inputs.offsets(*places)

    def tap_offsets(self, inputs: Geometry) -> Tensor:
        """Return where each tap of a window lies, from its beginning, row by row (int32)."""
        places = [
            torch.arange(n) * d - p
            for n, d, p in zip(self.size, self.dilation, self.padding, strict=True)
        ]
        offsets = inputs.offsets(*places)
        return (offsets - offsets[0]).view(self.size)

    def runs(self, inputs: Geometry, channels: int) -> tuple[Tensor, int]:
        """Return where a window's contiguous runs lie, and the bytes of one: a row's, or a tap's.

        It reads so many channels of each pixel: all, or those of a group.
        """
        taps = self.tap_offsets(inputs)
        if channels < inputs.channels:
            return taps.flatten(), channels
        beside = self.dilation[-1] == inputs.planes[-1] == 1
        if beside or self.size[-1] == 1:
            return taps[..., 0].flatten().contiguous(), self.size[-1] * inputs.pixel
        return taps.flatten(), inputs.pixel


PIXEL = Window([1] * DIMS, [1] * DIMS, [0] * DIMS, [1] * DIMS)
"""Each pixel alone."""


def window_of(layer: nn.Module, inputs: list[int]) -> Window | None:
    """Return how `layer` slides over `inputs` (channels and sides); None if it does not."""
    match layer:
        case q.QuantizedLayer() if layer.linear:  # a window as large as the image
            return replace(PIXEL, size=inputs[1:])
        case q.QuantizedLayer():
            return _filled([*layer.codes.shape[2:]], *slide_of(layer))
        case q.OnCodes(function=nn.MaxPool1d() | nn.MaxPool2d() | nn.MaxPool3d() as pool):
            return _filled(*pool_window(pool))
        case q.QuantizedMean(pool=nn.AvgPool1d() | nn.AvgPool2d() | nn.AvgPool3d() as pool):
            return slid_average(pool) if pool.count_include_pad else None
    return None


def _filled(*settings: list[int]) -> Window:
    """Return a window of one to three dimensions, of one frame and row where it has none."""
    alone = (1, 1, 0, 1)  # of a window of one: size, stride, padding, dilation
    return Window(
        *([one] * (DIMS - len(own)) + own for one, own in zip(alone, settings, strict=True))
    )


@dataclass(frozen=True, slots=True)
class Phase:
    """Outputs of a transposed convolution that read the same taps: all of some frames, rows, columns.

    They are those of a convolution of stride 1, `window`, with the kernel's `taps` of these sides.
    """

    window: Window
    outputs: tuple[list[int], ...]
    taps: tuple[list[int], ...]

    @property
    def sides(self) -> list[int]:
        """Return how many frames, rows and columns it has."""
        return [len(own) for own in self.outputs]


def phases(layer: q.QuantizedLayer, outputs: list[int]) -> list[Phase]:
    """Return the phases of a transposed convolution whose outputs have these sides."""
    dims = layer.codes.ndim - 2
    settings = [each(layer.options[name], dims) for name in ("stride", "padding", "dilation")]
    sides = zip(outputs[-dims:], layer.codes.shape[2:], *settings, strict=True)
    along = [_phases_along(*side) for side in ((1, 1, 1, 0, 1),) * (DIMS - dims) + (*sides,)]
    return [
        Phase(Window(*map(list, zip(*windows, strict=True))), read, taps)
        for windows, read, taps in (zip(*own, strict=True) for own in product(*along))
    ]


def transposed_border(
    layer: q.QuantizedLayer, inputs: list[int], outputs: list[int]
) -> tuple[int, int, int]:
    """Return how far a transposed convolution reaches beyond its inputs."""
    reached = [phase.window.border(inputs, phase.sides) for phase in phases(layer, outputs)]
    back, down, right = map(max, zip(*reached, strict=True))
    return back, down, right


def _phases_along(
    length: int, size: int, stride: int, padding: int, dilation: int
) -> list[tuple[tuple[int, int, int, int], list[int], list[int]]]:
    """Return the phases along one side: a window's settings, the outputs, the taps.

    Output o reads at (o + padding - k dilation) / stride by tap k, where that is whole: the outputs
    that lie a stride apart read by the same taps, side by side in turn.
    """
    found = []
    for first in range(min(stride, length)):
        reads = {first + padding - k * dilation: k for k in reversed(range(size))}
        taps = {place // stride: k for place, k in reads.items() if place % stride == 0}
        window = (len(taps) or 1, 1, -min(taps, default=0), dilation // gcd(dilation, stride))
        found.append((window, [*range(first, length, stride)], [*taps.values()]))
    return found


def mean_window(pool: nn.Module, inputs: list[int], outputs: list[int], rank: int) -> Window | None:
    """Return the window of an average of `inputs` (channels and sides); None where windows differ.

    `rank` is that of the inputs, the batch included; tokens have their sides before the channels.
    """
    sides = inputs[1:]
    if isinstance(pool, q.MeanOver):
        over = sorted(d % rank for d in pool.dims)
        whole = rank in EITHER and over in ([*range(2, rank)], [*range(1, rank - 1)])
        return replace(PIXEL, size=sides, stride=sides) if whole else None
    if rank != POOL_DIMS.get(type(pool), 0) + 2:
        return None
    match pool:
        case nn.AdaptiveAvgPool1d() | nn.AdaptiveAvgPool2d() | nn.AdaptiveAvgPool3d() if _divide(
            sides, outputs
        ):
            size = [n // m for n, m in zip(sides, outputs, strict=True)]
            return replace(PIXEL, size=size, stride=size)
        case nn.AvgPool1d() | nn.AvgPool2d() | nn.AvgPool3d():
            return _average_window(pool, sides, outputs)
    return None


def _divide(sides: list[int], outputs: list[int]) -> bool:
    """Tell whether an adaptive pool's windows are all of one size."""
    return all(n % m == 0 for n, m in zip(sides, outputs, strict=True))


def _average_window(pool: Any, inputs: list[int], outputs: list[int]) -> Window | None:
    if pool.ceil_mode and not _fit(pool, inputs, outputs):
        return None
    if any(each(pool.padding, 1)) and not pool.count_include_pad:
        return None
    return slid_average(pool)


def slid_average(pool: Any) -> Window | None:
    """Return how an average slides over images; None where it divides by a number of its own."""
    dims = POOL_DIMS[type(pool)]
    size, stride, padding = (each(v, dims) for v in (pool.kernel_size, pool.stride, pool.padding))
    if getattr(pool, "divisor_override", None):
        return None
    return _filled(size, stride, padding, [1] * dims)


def _fit(pool: Any, inputs: list[int], outputs: list[int]) -> bool:
    """Tell whether no window reaches beyond what it may read, so that rounding up adds none."""
    window = slid_average(pool)
    return window is not None and all(
        (m - 1) * stride + size <= n + 2 * padding
        for n, m, size, stride, padding in zip(
            inputs, outputs, window.size, window.stride, window.padding, strict=True
        )
    )


def is_depthwise(weights: Tensor, groups: int, inputs: Geometry) -> bool:
    """Tell whether a convolution has one filter (O, 1, D, H, W) per channel."""
    return groups == inputs.channels == len(weights) > 1


def depthwise_weights(weights: Tensor, window: Window, inputs: Geometry) -> DepthwiseWeights:
    """Return one filter per channel (O, 1, D, H, W) as a depthwise product reads it."""
    return DepthwiseWeights(
        weights.flatten(1).t().contiguous(), window.tap_offsets(inputs).flatten()
    )
