"""Other tasks than to name a class: shapes to be found in pictures, tones to be heard in signals."""

import math
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.baseline import Data
from benchmarks.workloads import DIGITS, Workload
from compression.training import F1, MEAN_ABSOLUTE_ERROR, MEAN_IOU, Recipe, Split

SIDE, LENGTH = 24, 48
TONES = (3.0, 7.0, 11.0)
"""Periods per signal."""


class UNet(nn.Module):
    """Two levels with a skip (Ronneberger et al. 2015), and a second answer, in a dictionary."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.norm1 = nn.Conv2d(1, width, 3, padding=1), nn.BatchNorm2d(width)
        self.down, self.norm2 = nn.Conv2d(width, 2 * width, 3, 2, 1), nn.BatchNorm2d(2 * width)
        self.deep = nn.Conv2d(2 * width, 2 * width, 3, padding=1)
        self.up = nn.Conv2d(3 * width, width, 3, padding=1)
        self.head, self.aux = nn.Conv2d(width, 3, 1), nn.Conv2d(2 * width, 3, 1)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        near = F.relu(self.norm1(self.first(x)))
        deep = F.relu(self.deep(F.relu(self.norm2(self.down(near)))))
        wide = F.interpolate(deep, scale_factor=2.0, mode="nearest")
        joined = F.relu(self.up(torch.cat([near, wide], 1)))
        return {"out": self.head(joined), "aux": self.aux(wide)}


def unet() -> nn.Module:
    return UNet(8)


def small_unet() -> nn.Module:
    return UNet(6)


def segmentation_loss(outputs: dict[str, Tensor], masks: Tensor, _: Tensor) -> Tensor:
    both = [F.cross_entropy(outputs[name], masks.long()) for name in ("out", "aux")]
    return both[0] + 0.4 * both[1]


def as_pixels(images: Tensor) -> Tensor:
    return images.float() / 128 - 1


def shapes(count: int, seed: int) -> Split:
    """Return pictures (N, 1, 24, 24) of a disc and a square in noise, and the class of each pixel."""
    made = torch.Generator().manual_seed(seed)
    centres = torch.rand(count, 2, 2, 1, 1, generator=made) * (SIDE - 8) + 4
    radii = torch.rand(count, 2, 1, 1, generator=made) * 3 + 2.5
    rows, columns = torch.arange(SIDE).view(1, -1, 1), torch.arange(SIDE).view(1, 1, -1)
    far = [(rows - centres[:, i, 0]).abs() for i in (0, 1)]
    wide = [(columns - centres[:, i, 1]).abs() for i in (0, 1)]
    disc = far[0] ** 2 + wide[0] ** 2 <= radii[:, 0] ** 2
    square = torch.maximum(far[1], wide[1]) <= radii[:, 1]
    masks = torch.where(square, 2, torch.where(disc, 1, 0))
    noise = torch.rand(count, SIDE, SIDE, generator=made) * 90
    pictures = torch.tensor([20.0, 110.0, 165.0])[masks] + noise
    return Split(pictures.to(torch.uint8).unsqueeze(1), masks.to(torch.uint8), as_pixels)


def shape_data(_: Path | None = None) -> Data:
    return Data(shapes(192, 0), shapes(32, 1), shapes(100, 2), title="drawn shapes")


def signal_net(width: int = 16, outputs: int = len(TONES)) -> nn.Module:
    return nn.Sequential(
        nn.Conv1d(1, width, 7, stride=2, padding=3), nn.BatchNorm1d(width), nn.ReLU(),
        nn.Conv1d(width, width, 5, stride=2, padding=2), nn.ReLU(),
        nn.Flatten(), nn.Linear(width * LENGTH // 4, outputs),
    )  # fmt: skip


def small_signal_net() -> nn.Module:
    return signal_net(8)


def tone_loss(logits: Tensor, tones: Tensor, _: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits, tones)


def itself(x: Tensor) -> Tensor:
    return x


def signals(count: int, seed: int) -> Split:
    """Return signals (N, 1, 48) of some tones in noise, and which tones they are (N, 3)."""
    made = torch.Generator().manual_seed(seed)
    tones = (torch.rand(count, len(TONES), generator=made) < 0.5).float()
    phase = 2 * math.pi * torch.rand(count, len(TONES), 1, generator=made)
    time = torch.linspace(0, 2 * math.pi, LENGTH)
    waves = torch.sin(torch.tensor(TONES).view(1, -1, 1) * time + phase)
    noise = 0.4 * torch.randn(count, LENGTH, generator=made)
    return Split((tones.unsqueeze(2) * waves).sum(1).add(noise).unsqueeze(1), tones, itself)


def signal_data(_: Path | None = None) -> Data:
    return Data(signals(512, 0), signals(64, 1), signals(200, 2), title="tones")


ADAM = Recipe(epochs=8, batch_size=8, learning_rate=0.02, optimizer="adam", weight_decay=0.0)
RECIPE = Recipe(epochs=6, batch_size=16, learning_rate=0.05)
ROWS = (
    *("baseline", "static-int8", "int8-qat-taught", "l1-unstructured-60-tuned"),
    *("l1-unstructured-60-taught", "distilled"),
)
SHAPES: Workload = replace(
    DIGITS, name="shapes", network=unet, student=small_unet, data=shape_data, metric=MEAN_IOU,
    loss=segmentation_loss, recipe=ADAM, student_recipe=ADAM, student_layers={},
    fine_tune=replace(ADAM, epochs=2, learning_rate=0.003), sparse=None, schedule_images=None,
    batch_sizes=(1, 4), rows=ROWS,
)  # fmt: skip
"""A U-Net whose outputs are a dictionary."""
SIGNALS: Workload = replace(
    SHAPES, name="signals", network=signal_net, student=small_signal_net, data=signal_data,
    metric=F1, loss=tone_loss, recipe=RECIPE, student_recipe=replace(RECIPE, learning_rate=0.01),
    fine_tune=replace(RECIPE, epochs=2, learning_rate=0.01),
)  # fmt: skip
"""A network of 1-d convolutions that says which of three tones a signal holds."""


def loudness(inputs: Split) -> Split:
    """Return signals with how loud they are (N, 1), to be told by a number."""
    return replace(inputs, labels=inputs.images.square().mean(2))


def loudness_data(_: Path | None = None) -> Data:
    few = signal_data()
    return Data(loudness(few.train), loudness(few.validation), loudness(few.test), "loudness")


def loudness_net() -> nn.Module:
    return signal_net(outputs=1)


def squared(outputs: Tensor, targets: Tensor, _: Tensor) -> Tensor:
    return F.mse_loss(outputs, targets)


LOUDNESS: Workload = replace(
    SIGNALS, name="loudness", network=loudness_net, student=loudness_net, data=loudness_data,
    metric=MEAN_ABSOLUTE_ERROR, loss=squared,
)  # fmt: skip
"""A regression, whose score is an error."""
