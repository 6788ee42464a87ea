"""What filters are multiplied with: the windows of a convolution, the rows of a linear layer."""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compression.layers import TRANSPOSED

Gaps = tuple[int, ...]


def patches(layer: nn.Module, inputs: Tensor, most: int) -> Tensor:
    """Return (groups, n, weights of a filter), n at most `most` windows that lie equally far apart.

    `layer` is linear, a convolution or a transposed one, of `inputs` (N, ...) or of one image. Times a
    filter, as `filters` lays it out, each is an output without its bias.

    >>> patches(nn.Conv2d(3, 6, 5, groups=3), torch.zeros(2, 3, 7, 7), 100).shape
    torch.Size([3, 18, 25])
    """
    if isinstance(layer, nn.Linear):
        rows = inputs.reshape(-1, inputs.shape[-1])
        return rows[:: _step(len(rows), most)][None]
    conv: Any = layer
    inputs = inputs if inputs.ndim == conv.weight.ndim else inputs[None]
    if isinstance(layer, TRANSPOSED):
        taps = tuple(range(-len(conv.kernel_size), 0))
        windows = _sampled(_stretched(conv, inputs), conv, (1,) * len(taps), most).flip(taps)
    else:
        mode = "constant" if conv.padding_mode == "zeros" else conv.padding_mode
        padded = F.pad(inputs, conv._reversed_padding_repeated_twice, mode=mode)
        windows = _sampled(padded, conv, conv.stride, most)
    return windows.unflatten(1, (conv.groups, -1)).flatten(2).transpose(0, 1)


def _step(count: int, most: int) -> int:
    """Return an odd step, so that it does not walk down one column of an image of even width."""
    return max(1, -(-count // max(most, 1))) | 1


def _stretched(layer: Any, inputs: Tensor) -> Tensor:
    """Return what a transposed convolution's flipped kernel walks over: inputs among zeros."""
    sides = [(n - 1) * s + 1 for n, s in zip(inputs.shape[2:], layer.stride, strict=True)]
    apart = inputs.new_zeros(*inputs.shape[:2], *sides)
    apart[_every(layer.stride)] = inputs
    spans = zip(layer.kernel_size, layer.dilation, layer.padding, strict=True)
    borders = [dilation * (size - 1) - padding for size, dilation, padding in spans]
    ends = zip(borders[::-1], layer.output_padding[::-1], strict=True)
    return F.pad(apart, [n for border, more in ends for n in (border, border + more)])


def _sampled(padded: Tensor, layer: Any, stride: Gaps, most: int) -> Tensor:
    """Return windows (n, C, *kernel) of `padded` (N, C, ...)."""
    windows, rank = padded, len(layer.kernel_size)
    sizes = zip(layer.kernel_size, layer.dilation, stride, strict=True)
    for dim, (size, dilation, gap) in enumerate(sizes, 2):
        windows = windows.unfold(dim, dilation * (size - 1) + 1, gap)
    windows = windows[_every(layer.dilation)]
    places = (len(windows), *windows.shape[2 : 2 + rank])
    count = math.prod(places)
    chosen = torch.unravel_index(torch.arange(0, count, _step(count, most)), places)
    image, *sides = (index.to(padded.device) for index in chosen)
    where: Any = (image, slice(None), *sides)
    return windows[where]


def _every(steps: Gaps) -> Any:
    """Return the index of every so many of the last axes."""
    return (..., *(slice(None, None, step) for step in steps))
