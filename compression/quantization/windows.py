"""Attention in windows that are shifted, written out for maps of one size (Swin Transformers)."""

import math
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compression.errors import CompressionError
from compression.layers import alteration_of_call, replace_everywhere

if TYPE_CHECKING:
    from torchvision.models.swin_transformer import PatchMerging, ShiftedWindowAttention

Sizes = Mapping[str, tuple[int, int]]
"""Rows and columns of the maps that attention in windows reads, by its name."""

FAR = -100.0
"""What is added to the scores of tokens that a shift brought side by side, as torchvision does."""
MOST_NUMBERS = 2**25
"""That masks and padding may hold, of images of 1,024 pixels: no file makes us take more memory."""


def _check_numbers(numbers: int, size: tuple[int, int]) -> None:
    if numbers > MOST_NUMBERS:
        raise CompressionError(
            f"maps of {size[0]}x{size[1]}: masks and padding of their windows would hold {numbers:,} "
            f"numbers, more than {MOST_NUMBERS:,}; take smaller images"
        )


class Padded(nn.Module):
    """Maps (N, H, W, C) of one size with zeros beside and below, constants that codes are joined to."""

    beside: nn.Parameter | None
    below: nn.Parameter | None

    def __init__(self, size: tuple[int, int], padding: tuple[int, int], channels: int) -> None:
        """Hold the zeros: of no size where nothing is added."""
        super().__init__()
        (height, width), (below, beside) = size, padding
        shapes = {
            "beside": (1, height, beside, channels),
            "below": (1, below, width + beside, channels),
        }
        _check_numbers(sum(map(math.prod, shapes.values())), size)
        for name, shape in shapes.items():
            zeros = nn.Parameter(torch.zeros(shape), requires_grad=False)
            self.register_parameter(name, zeros if zeros.numel() else None)

    def forward(self, x: Tensor) -> Tensor:
        """Return the larger maps."""
        for zeros, dim in ((self.beside, 2), (self.below, 1)):
            if zeros is not None:
                x = torch.cat([x, zeros.expand(x.shape[0], -1, -1, -1)], dim)
        return x


class WindowAttention(nn.Module):
    """What torchvision's ShiftedWindowAttention computes in eval mode of maps (N, H, W, C) of one size.

    Windows, shifts and padding are moves of tokens, and the positions' biases a constant mask. Liu et
    al. 2021, arXiv:2103.14030.
    """

    mask: Tensor

    def __init__(self, held: "ShiftedWindowAttention", size: tuple[int, int]) -> None:
        """Take over the layers of `held`, for maps of `size` rows and columns."""
        super().__init__()
        self.qkv, self.proj, self.heads = held.qkv, held.proj, held.num_heads
        self.size, self.window = size, tuple(held.window_size)
        below, beside = (-side % window for side, window in zip(size, self.window, strict=True))
        self.pad = Padded(size, (below, beside), self.proj.in_features)
        self.padded = bool(below or beside)
        self.counts = [-(-side // window) for side, window in zip(size, self.window, strict=True)]
        self.shift = [
            0 if count == 1 else shift
            for count, shift in zip(self.counts, held.shift_size, strict=True)
        ]
        tokens, shifted = self.window[0] * self.window[1], any(self.shift)
        numbers = (self.counts[0] * self.counts[1] if shifted else 1) * self.heads * tokens**2
        _check_numbers(numbers, size)
        mask = held.get_relative_position_bias().detach()
        self.register_buffer("mask", mask + self._apart().to(mask) if shifted else mask)

    def forward(self, x: Tensor) -> Tensor:
        """Return maps (N, H, W, C); torch's own RuntimeError for another size."""
        down, right = self.shift
        (tall, wide), (rows, columns) = self.counts, self.window
        x = self.pad(x)
        if down or right:
            x = torch.roll(x, (-down, -right), (1, 2))
        x = x.unflatten(2, (wide, columns)).unflatten(1, (tall, rows))  # of this size, or it raises
        x = self._attend(x.transpose(2, 3).flatten(3, 4).flatten(1, 2))
        x = x.unflatten(2, (rows, columns)).unflatten(1, (tall, wide))
        x = x.transpose(2, 3).flatten(3, 4).flatten(1, 2)
        if down or right:
            x = torch.roll(x, (down, right), (1, 2))
        return x[:, : self.size[0], : self.size[1]] if self.padded else x

    def _attend(self, x: Tensor) -> Tensor:
        """Return tokens (N, windows, tokens, C) that each window's own were attended to."""
        qkv = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(3, 0, 1, 4, 2, 5)
        q, k, v = qkv.unbind(0)
        x = F.scaled_dot_product_attention(q, k, v, attn_mask=self.mask)
        outputs: Tensor = self.proj(x.transpose(2, 3).flatten(3))
        return outputs

    def _apart(self) -> Tensor:
        """Return FAR for tokens that a shift brought into one window (windows, 1, tokens, tokens)."""
        regions = torch.zeros([])
        for count, window, shift in zip(self.counts, self.window, self.shift, strict=True):
            place, side = torch.arange(count * window), count * window
            region = (place >= side - window).int() + (place >= side - shift).int()
            regions = 3 * regions[..., None] + region
        (tall, wide), (rows, columns) = self.counts, self.window
        windows = regions.view(tall, rows, wide, columns).transpose(1, 2).reshape(tall * wide, -1)
        return FAR * (windows[:, None, :, None] != windows[:, None, None, :]).float()


class Merging(nn.Module):
    """What torchvision's PatchMerging computes of maps (N, H, W, C) of one size: (N, H/2, W/2, 2C)."""

    def __init__(self, held: "PatchMerging", size: tuple[int, int]) -> None:
        """Take over the layers of `held`, for maps of `size` rows and columns."""
        super().__init__()
        self.norm, self.reduction = held.norm, held.reduction
        padding = (size[0] % 2, size[1] % 2)
        self.pad = Padded(size, padding, self.reduction.in_features // 4)

    def forward(self, x: Tensor) -> Tensor:
        """Return the maps, four neighbours in one."""
        x = self.pad(x)
        four = [x[:, row::2, column::2] for column in (0, 1) for row in (0, 1)]
        outputs: Tensor = self.reduction(self.norm(torch.cat(four, -1)))
        return outputs


def _written() -> dict[type[nn.Module], Any]:
    """Return what stands for torchvision's layers: for none where nothing has imported them."""
    swin: Any = sys.modules.get("torchvision.models.swin_transformer")
    if swin is None:
        return {}
    return {swin.ShiftedWindowAttention: WindowAttention, swin.PatchMerging: Merging}


def shown_sizes(network: nn.Module, predict: Callable[[], object]) -> dict[str, tuple[int, int]]:
    """Return the sizes of maps that `predict` shows to what can be written out: to each, one only.

    Nothing is predicted where nothing can be. What hooks or patches alter stays as it is, and so does
    what reads clips, whose frames torchvision's merging takes for images.
    """
    sizes: dict[str, set[tuple[int, ...]]] = {}
    handles, known = [], _written()
    for name, module in network.named_modules():
        if type(module) not in known or alteration_of_call(module) is not None:
            continue

        def note(_: Any, args: tuple[Tensor], name: str = name) -> None:
            sizes.setdefault(name, set()).add(tuple(args[0].shape[1:-1]))

        handles.append(module.register_forward_pre_hook(note))
    if handles:
        predict()
    for handle in handles:
        handle.remove()
    found = {name: size for name, (size, *others) in sizes.items() if not others}
    return {name: (size[0], size[1]) for name, size in found.items() if len(size) == 2}


def write_out_windows(network: nn.Module, sizes: Sizes) -> nn.Module:
    """Replace, in place, what `sizes` names by what torch.fx looks into; return the network.

    Raises CompressionError for a name that nothing of the kind has, and for maps too large.
    """
    held_numbers, known, named = 0, _written(), dict(network.named_modules())
    for name, size in sizes.items():
        held = named.get(name)
        if held is None or type(held) not in known:
            kind = "nothing" if held is None else type(held).__name__
            raise CompressionError(f"{name!r}: expected attention in windows, found {kind}")
        made = known[type(held)](held, size).train(held.training)
        own = (*made.buffers(recurse=False), *made.pad.parameters())
        held_numbers += sum(tensor.numel() for tensor in own)
        _check_numbers(held_numbers, size)
        if held is network:
            return made  # type: ignore[no-any-return]
        replace_everywhere(network, held, made)
    return network
