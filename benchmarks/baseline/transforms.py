"""What becomes of stored images: normalized for the network, augmented in training."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from compression.errors import CompressionError, UnsupportedTypeError


@dataclass(frozen=True, slots=True)
class Normalize:
    """uint8 images -> float32 inputs: resized to `size` where it is given, then (x - mean) / std.

    `mean` and `std` are those of pixels in 0..1, a number per channel or one for all. CompressionError
    for other numbers, for a std of 0, and for images that are not uint8 or have other channels.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    size: int | None = None

    def __post_init__(self) -> None:
        """Refuse numbers that are no statistics of pixels in 0..1."""
        if not self.mean or not all(0 <= value <= 1 for value in self.mean):
            raise CompressionError(
                f"Normalize: mean must be of pixels in 0..1 (divide by 255), found {self.mean}"
            )
        if not self.std or not all(0 < value < math.inf for value in self.std):
            raise CompressionError(f"Normalize: std must be above 0, found {self.std}")

    def __call__(self, images: Tensor) -> Tensor:
        """Prepare a batch (N, C, H, W) of uint8 images."""
        if images.dtype != torch.uint8 or images.ndim != 4:
            raise UnsupportedTypeError(
                "Normalize divides by 255: expected uint8 images (N, C, H, W), found "
                f"{str(images.dtype)[6:]} {tuple(images.shape)}; keep pixels as uint8 (0 to 255), or "
                "give the Split another prepare"
            )
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) not in (1, images.shape[1]):
                raise CompressionError(
                    f"Normalize: expected a {name} per channel or one for all, found {len(values)} "
                    f"for images of {images.shape[1]} channels"
                )
        pixels = images.float() / 255
        if self.size is not None:
            pixels = F.interpolate(pixels, size=self.size, mode="bilinear", antialias=True)
        mean, std = (_per_channel(v, images.device) for v in (self.mean, self.std))
        return (pixels - mean) / std


def _per_channel(values: tuple[float, ...], device: torch.device) -> Tensor:
    # Filled on the device: a copy from the host would stop a GPU at every batch.
    column = torch.empty(len(values), 1, 1, device=device)
    for channel, value in zip(column, values, strict=True):
        channel.fill_(value)
    return column


@dataclass(frozen=True, slots=True)
class Augment:
    """Random shifts of up to `shift` pixels (reflected), flips, and rotations up to `degrees`."""

    shift: int = 4
    flip: bool = True
    degrees: float = 0.0

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Augment a batch (N, C, H, W), each image by its own draw on the generator's device."""
        if self.shift:
            images = _shifted(images, self.shift, generator)
        if self.flip:
            flips = torch.rand(len(images), generator=generator, device=generator.device) < 0.5
            images = torch.where(flips.to(images.device).view(-1, 1, 1, 1), images.flip(3), images)
        if self.degrees:
            images = _rotated(images, self.degrees, generator)
        return images


def _shifted(images: Tensor, shift: int, generator: torch.Generator) -> Tensor:
    count, channels, height, width = images.shape
    # reflect padding is not implemented for uint8
    padded = F.pad(images.float(), (shift,) * 4, mode="reflect").to(images.dtype)
    offsets = torch.randint(
        0, 2 * shift + 1, (2, count, 1), generator=generator, device=generator.device
    ).to(images.device)
    rows = (offsets[0] + torch.arange(height, device=images.device)).view(count, 1, height, 1)
    columns = (offsets[1] + torch.arange(width, device=images.device)).view(count, 1, 1, width)
    batch = torch.arange(count, device=images.device).view(count, 1, 1, 1)
    channel = torch.arange(channels, device=images.device).view(1, channels, 1, 1)
    return padded[batch, channel, rows, columns]


def _rotated(images: Tensor, degrees: float, generator: torch.Generator) -> Tensor:
    draws = torch.rand(len(images), generator=generator, device=generator.device)
    angles = torch.deg2rad((draws * 2 - 1) * degrees)
    cosine, sine, zero = angles.cos(), angles.sin(), torch.zeros_like(angles)
    theta = torch.stack([cosine, -sine, zero, sine, cosine, zero], dim=1).view(-1, 2, 3)
    grid = F.affine_grid(theta.to(images.device), list(images.shape), align_corners=False)
    rotated = F.grid_sample(images.float(), grid, padding_mode="reflection", align_corners=False)
    return rotated.round().to(images.dtype)
