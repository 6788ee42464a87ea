"""Layers as other packages derive them from torch's: torch.fx looks into each."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class NormAct(nn.BatchNorm2d):
    """A batch norm with its activation, as timm's BatchNormAct2d."""

    def __init__(self, channels: int) -> None:
        """Draw statistics and factors."""
        super().__init__(channels)
        self.drop, self.act = nn.Identity(), nn.ReLU(inplace=True)
        with torch.no_grad():
            for tensor in (self.running_var, self.weight):
                tensor.uniform_(0.5, 1.5)  # type: ignore[union-attr]
            for tensor in (self.running_mean, self.bias):
                tensor.normal_(0, 0.3)  # type: ignore[union-attr]

    def forward(self, x: Tensor) -> Tensor:
        """Normalize, then activate."""
        torch._assert(x.ndim == 4, "an image")
        training, momentum = self.training, 0.0 if self.momentum is None else self.momentum
        statistics = self.running_mean, self.running_var
        x = F.batch_norm(x, *statistics, self.weight, self.bias, training, momentum, self.eps)
        found: Tensor = self.act(self.drop(x))
        return found


class Same(nn.Conv2d):
    """A convolution that pads as TensorFlow does, as timm's Conv2dSame: by what the size asks for."""

    def forward(self, x: Tensor) -> Tensor:
        """Pad, and convolve."""
        pads: list[int] = []
        for size, kernel, stride in zip(
            x.size()[:1:-1], self.kernel_size, self.stride, strict=True
        ):
            missing = max((-(size // -stride) - 1) * stride + kernel - size, 0)
            pads += [missing // 2, missing - missing // 2]
        if any(pads):
            x = F.pad(x, pads)
        return F.conv2d(x, self.weight, self.bias, self.stride, 0, self.dilation, self.groups)


class Standardized(nn.Conv2d):
    """A convolution of standardized weights times a gain, as timm's ScaledStdConv2d."""

    def __init__(self, *args: Any, **options: Any) -> None:
        """Draw the gains."""
        super().__init__(*args, **options)
        self.gain = nn.Parameter(torch.rand(self.out_channels, 1, 1, 1) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        """Standardize, and convolve."""
        rows = self.weight.reshape(1, self.out_channels, -1)
        gains = (self.gain * 0.5).view(-1)
        rows = F.batch_norm(rows, None, None, gains, training=True, momentum=0.0, eps=1e-6)
        weight = rows.reshape_as(self.weight)
        return F.conv2d(x, weight, self.bias, self.stride, self.padding, self.dilation, self.groups)


class Head(nn.Linear):
    """A linear layer, as timm's Linear."""

    def forward(self, x: Tensor) -> Tensor:
        """Multiply."""
        return F.linear(x, self.weight, self.bias)


def network(conv: Any = nn.Conv2d, **options: Any) -> nn.Module:
    """Return two convolutions of a kind with norms, a pool, and a head: images of 3 channels."""
    torch.manual_seed(0)
    options = {"padding": 1, "bias": False} | options
    return nn.Sequential(
        conv(3, 32, 3, **options), NormAct(32), conv(32, 48, 3, stride=2, **options), NormAct(48),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), Head(48, 5),
    ).eval()  # fmt: skip
