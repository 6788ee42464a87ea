"""Which axis of a value its channels are: the second of images and their like, the last of tokens."""

import math

from torch import Tensor, nn

from compression.quantization import modules as q

FIRST, LAST = 1, -1
_BY_CODE = (
    q.QuantizedJoin, q.QuantizedProduct, q.QuantizedFunction, q.QuantizedAffine, q.ClampCodes,
    q.Dequantize,
)  # fmt: skip
"""What reads pixel by pixel, whichever axis the channels are."""
EITHER = (3, 4, 5)
"""How many axes a value has whose channels may be either: a signal, image or clip, or tokens."""
DIMS = 3
"""Frames, rows and columns: an image is a clip of one frame, a signal an image of one row."""


def axis_read(layer: nn.Module, rank: int) -> int | None:
    """Return the channels' axis of what `layer` reads, of so many axes; None where it takes both.

    Three axes are a signal or tokens, four an image or rows and columns of tokens, five a clip or
    frames of these; others are rows.
    """
    if rank not in EITHER:
        return LAST
    match layer:
        case q.QuantizedLayer():
            return LAST if layer.linear else FIRST
        case q.QuantizedLayerNorm() | q.QuantizedAttention():
            return LAST
        case q.QuantizedMean(pool=q.MeanOver() as mean):
            return LAST if sorted(d % rank for d in mean.dims) == [*range(1, rank - 1)] else FIRST
        case q.Quantize() if rank == 3:
            return None
    return None if isinstance(layer, _BY_CODE) else FIRST


def spatial(shape: list[int], axis: int) -> list[int]:
    """Return the channels, frames, rows and columns of a value of this shape, its batch included."""
    sizes = shape[1:]
    if is_by_channel(shape, axis):
        channels, *pixels = sizes
    else:
        *pixels, channels = sizes or [1]
    if len(pixels) > DIMS:
        pixels = [math.prod(pixels)]
    return [channels, *[1] * (DIMS - len(pixels)), *pixels]


def by_pixel(numbers: Tensor, shape: list[int], axis: int) -> Tensor:
    """Return the numbers of a value of this shape as (pixels, channels)."""
    channels = spatial(shape, axis)[0]
    if is_by_channel(shape, axis):
        return numbers.view(channels, -1).t()
    return numbers.view(-1, channels)


def is_by_channel(shape: list[int], axis: int) -> bool:
    """Tell whether the numbers of a value come channel by channel, not pixel by pixel."""
    return axis == FIRST and len(shape) in EITHER
