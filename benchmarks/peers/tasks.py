"""Networks of other tasks than classifying images, of sizes that people deploy, and inputs for them.

A detector of YOLO's shape, a U-Net, torchvision's segmentation, signals, clips, and tokens.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

PATCH = 16
"""Pixels of a token's side."""
FRAMES = 8
"""Of a clip, whose digit moves a pixel from each to the next."""


class Convolution(nn.Sequential):
    """A convolution that keeps the sides, or halves them; its norm and SiLU."""

    def __init__(self, inputs: int, outputs: int, size: int = 1, stride: int = 1) -> None:
        """Pad by half of `size`."""
        filters = nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False)
        super().__init__(filters, nn.BatchNorm2d(outputs), nn.SiLU())


class Stage(nn.Module):
    """Half of the channels through a residual block, concatenated to what they were (YOLO's C2f)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        """Take `inputs` channels and give `outputs`, an even number."""
        super().__init__()
        half = outputs // 2
        self.before, self.after = Convolution(inputs, outputs), Convolution(3 * half, outputs)
        self.block = nn.Sequential(Convolution(half, half, 3), Convolution(half, half, 3))

    def forward(self, x: Tensor) -> Tensor:
        """Return a map of the same sides."""
        kept, y = self.before(x).chunk(2, 1)
        return self.after(torch.cat([kept, y, y + self.block(y)], 1))  # type: ignore[no-any-return]


class Detector(nn.Module):
    """A detector of YOLO's shape: three maps of boxes, at an eighth of the image's sides and less."""

    def __init__(self, outputs: int = 75) -> None:
        """Give `outputs` channels: three boxes per place, each of 5 numbers and 20 classes."""
        super().__init__()
        self.stem = nn.Sequential(
            Convolution(3, 32, 3, 2), Convolution(32, 64, 3, 2), Stage(64, 64)
        )
        self.third = nn.Sequential(Convolution(64, 128, 3, 2), Stage(128, 128))
        self.fourth = nn.Sequential(Convolution(128, 192, 3, 2), Stage(192, 192))
        self.fifth = nn.Sequential(Convolution(192, 256, 3, 2), Stage(256, 256))
        self.pools = nn.ModuleList(nn.MaxPool2d(n, 1, n // 2) for n in (5, 9, 13))
        self.pooled = Convolution(4 * 256, 256)
        self.up = nn.Upsample(scale_factor=2)
        self.mixed_fourth, self.mixed_third = Stage(256 + 192, 192), Stage(192 + 128, 128)
        self.heads = nn.ModuleList(nn.Conv2d(n, outputs, 1) for n in (128, 192, 256))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return the boxes of images (N, 3, H, W), whose sides are multiples of 32."""
        third = self.third(self.stem(x))
        fourth = self.fourth(third)
        fifth = self.fifth(fourth)
        fifth = self.pooled(torch.cat([fifth, *(pool(fifth) for pool in self.pools)], 1))
        fourth = self.mixed_fourth(torch.cat([self.up(fifth), fourth], 1))
        third = self.mixed_third(torch.cat([self.up(fourth), third], 1))
        maps = zip(self.heads, (third, fourth, fifth), strict=True)
        return tuple(head(level) for head, level in maps)


def _pair(inputs: int, outputs: int) -> nn.Module:
    """Return a U-Net's two convolutions of a level."""
    filters = (nn.Conv2d(n, outputs, 3, padding=1, bias=False) for n in (inputs, outputs))
    return nn.Sequential(
        *(part for f in filters for part in (f, nn.BatchNorm2d(outputs), nn.ReLU()))
    )


class UNet(nn.Module):
    """A U-Net of four levels: halved by pools, doubled by transposed convolutions."""

    def __init__(self, width: int = 32, classes: int = 2) -> None:
        """Give each pixel a number per class; the first level has `width` channels."""
        super().__init__()
        widths = [width << level for level in range(4)]
        self.down = nn.ModuleList(_pair(i, o) for i, o in zip([3, *widths], widths, strict=False))
        pairs = [*zip(widths[:0:-1], widths[-2::-1], strict=True)]
        self.up = nn.ModuleList(nn.ConvTranspose2d(i, o, 2, 2) for i, o in pairs)
        self.mixed = nn.ModuleList(_pair(2 * o, o) for _, o in pairs)
        self.head = nn.Conv2d(width, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, classes, H, W) of images (N, 3, H, W), whose sides are multiples of 8."""
        levels = [self.down[0](x)]
        for pair in self.down[1:]:
            levels.append(pair(F.max_pool2d(levels[-1], 2)))
        x = levels.pop()
        for up, mixed in zip(self.up, self.mixed, strict=True):
            x = mixed(torch.cat([levels.pop(), up(x)], 1))
        return self.head(x)  # type: ignore[no-any-return]


class Residual(nn.Module):
    """Two convolutions along all sides and a shortcut: of signals, or of clips."""

    def __init__(self, layer: Any, norm: Any, inputs: int, outputs: int) -> None:
        """Halve the sides; `layer` is nn.Conv1d or nn.Conv3d, `norm` its batch norm."""
        super().__init__()
        self.first = nn.Sequential(layer(inputs, outputs, 3, 2, 1, bias=False), norm(outputs))
        self.second = nn.Sequential(layer(outputs, outputs, 3, 1, 1, bias=False), norm(outputs))
        self.short = nn.Sequential(layer(inputs, outputs, 1, 2, bias=False), norm(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Return a map of half the sides."""
        return F.relu(self.second(F.relu(self.first(x))) + self.short(x))


def signals() -> nn.Module:
    """Return a ResNet of signals (N, 3, 1024), of ten classes."""
    layer, norm = nn.Conv1d, nn.BatchNorm1d
    stem = nn.Sequential(layer(3, 64, 15, 2, 7, bias=False), norm(64), nn.ReLU(), nn.MaxPool1d(2))
    blocks = (Residual(layer, norm, i, o) for i, o in ((64, 128), (128, 256), (256, 256)))
    return nn.Sequential(stem, *blocks, nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(256, 10))


def clips() -> nn.Module:
    """Return a ResNet of clips (N, 3, 8, 56, 56), of ten classes."""
    layer, norm = nn.Conv3d, nn.BatchNorm3d
    stem = nn.Sequential(
        layer(3, 32, (3, 5, 5), (1, 2, 2), (1, 2, 2), bias=False), norm(32), nn.ReLU()
    )
    blocks = (Residual(layer, norm, i, o) for i, o in ((32, 64), (64, 128), (128, 256)))
    return nn.Sequential(stem, *blocks, nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(256, 10))


class Encoder(nn.Module):
    """torch's own encoder of four layers on tokens (N, 196, 768), of ten classes."""

    def __init__(self, width: int = 192, heads: int = 3) -> None:
        """Take each token to `width` numbers, and look at them by so many heads."""
        super().__init__()
        self.first = nn.Linear(3 * PATCH**2, width)
        self.places = nn.Parameter(torch.randn(1, (224 // PATCH) ** 2, width) / 2)
        layer = nn.TransformerEncoderLayer(
            width, heads, 4 * width, activation="gelu", batch_first=True, norm_first=True
        )
        self.body = nn.TransformerEncoder(layer, 4, enable_nested_tensor=False)
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Return the classes' numbers (N, 10)."""
        x = self.body(self.first(x) + self.places)
        return self.head(self.norm(x).mean(1))  # type: ignore[no-any-return]


def _lively(factory: Callable[[], nn.Module]) -> nn.Module:
    """Return a network whose signals do not fade (He et al. 2015): else biases would drown them."""
    network = factory()
    for layer in network.modules():
        if isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d):
            nn.init.kaiming_normal_(layer.weight)
    return network


def _segmentation(name: str) -> nn.Module:
    from torchvision.models import segmentation  # it takes a second, which other networks save

    factory = getattr(segmentation, name)
    network: nn.Module = factory(weights=None, weights_backbone=None, num_classes=21)
    return network


def _samples(images: Tensor) -> Tensor:
    """Return images' rows, one after the other, as signals of 1,024 samples."""
    return F.adaptive_avg_pool1d(images.flatten(2), 1024)


def _frames(images: Tensor) -> Tensor:
    """Return clips in which the images move to the right."""
    small = F.avg_pool2d(images, 4)
    return torch.stack([small.roll(n, -1) for n in range(FRAMES)], 2)


def _patches(images: Tensor) -> Tensor:
    """Return the pixels of each patch as a token."""
    return F.unfold(images, PATCH, stride=PATCH).transpose(1, 2).contiguous()


@dataclass(frozen=True, slots=True)
class Task:
    """A network with drawn weights, and how its inputs are made of images (N, 3, 224, 224)."""

    network: Callable[[], nn.Module]
    inputs: Callable[[Tensor], Tensor] = torch.Tensor.contiguous


TASKS = {
    "lraspp_mobilenet_v3_large": Task(partial(_segmentation, "lraspp_mobilenet_v3_large")),
    "fcn_resnet50": Task(partial(_segmentation, "fcn_resnet50")),
    "detector": Task(partial(_lively, Detector)),
    "unet": Task(partial(_lively, UNet)),
    "signals": Task(partial(_lively, signals), _samples),
    "clips": Task(partial(_lively, clips), _frames),
    "encoder": Task(Encoder, _patches),
}
