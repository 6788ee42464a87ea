"""Networks of other shapes than a classifier's: name -> network, inputs."""

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import segmentation

from tests.support.channel_nets import Yolo
from tests.support.integer_nets import numbers


class UNet(nn.Module):
    """A map halved twice and made larger again; what it was before is concatenated to it."""

    def __init__(self, up: Callable[[int], nn.Module]) -> None:
        super().__init__()
        self.first, self.second, self.third = block(3, 8), block(8, 16), block(16, 16)
        self.up, self.further = up(16), up(16)
        self.after, self.last = block(32, 16), block(24, 8)
        self.head = nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        y = self.second(F.max_pool2d(x, 2))
        z = self.third(F.max_pool2d(y, 2))
        y = self.after(torch.cat([y, self.up(z)], 1))
        return cast(Tensor, self.head(self.last(torch.cat([x, self.further(y)], 1))))


class Larger(nn.Module):
    """A map to twice its size by interpolation, to a size that is asked of another."""

    def __init__(self, mode: str) -> None:
        super().__init__()
        self.mode = mode

    def forward(self, x: Tensor) -> Tensor:
        corners = None if self.mode == "nearest" else False
        return F.interpolate(x, scale_factor=2, mode=self.mode, align_corners=corners)


class Signals(nn.Module):
    """A network of signals: convolutions with strides, dilation and groups, pools, two outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv1d(2, 8, 7, 2, 3), nn.BatchNorm1d(8), nn.ReLU())
        self.deep = nn.Sequential(
            nn.Conv1d(8, 8, 3, padding=2, dilation=2, groups=8), nn.Conv1d(8, 16, 1),
            nn.BatchNorm1d(16), nn.ReLU(),
        )  # fmt: skip
        self.short, self.head = nn.Conv1d(8, 16, 1), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = F.max_pool1d(self.stem(x), 3, 2, 1)
        x = F.relu(self.deep(x) + self.short(x))
        y = F.interpolate(F.avg_pool1d(x, 2), size=x.shape[-1], mode="linear")
        return self.head(F.adaptive_avg_pool1d(x, 1).flatten(1)), y


class Volumes(nn.Module):
    """A network of volumes or clips: convolutions of three dimensions, a residual, pools."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv3d(2, 8, (1, 3, 3), (1, 2, 2), (0, 1, 1)), nn.BatchNorm3d(8), nn.ReLU()
        )
        self.block = nn.Sequential(nn.Conv3d(8, 8, 3, padding=1), nn.BatchNorm3d(8))
        self.pool, self.head = nn.MaxPool3d(2), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = self.pool(F.relu(self.block(x) + x))
        return cast(Tensor, self.head(F.adaptive_avg_pool3d(x, 1).flatten(1)))


def block(inputs: int, outputs: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()
    )


def _lraspp() -> nn.Module:
    return segmentation.lraspp_mobilenet_v3_large(
        weights=None, weights_backbone=None, num_classes=4
    )


def _fcn() -> nn.Module:
    return segmentation.fcn_resnet50(
        weights=None, weights_backbone=None, num_classes=4, aux_loss=True
    )


NETS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "yolo": (Yolo, (4, 3, 16, 24)),
    "unet, transposed": (lambda: UNet(lambda n: nn.ConvTranspose2d(n, n, 2, 2)), (4, 3, 12, 8)),
    "unet, nearest": (lambda: UNet(lambda _: Larger("nearest")), (4, 3, 12, 8)),
    "unet, bilinear": (lambda: UNet(lambda _: Larger("bilinear")), (4, 3, 12, 8)),
    "signals": (Signals, (4, 2, 32)),
    "volumes": (Volumes, (4, 2, 4, 8, 8)),
    "volumes, transposed": (
        lambda: nn.Sequential(nn.ConvTranspose3d(2, 4, 2, 2), nn.ReLU(), nn.Conv3d(4, 2, 3)),
        (4, 2, 3, 4, 5),
    ),
}
SEGMENTATION: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "lraspp": (_lraspp, (2, 3, 48, 64)),
    "fcn": (_fcn, (2, 3, 24, 32)),
}


def made(name: str) -> tuple[nn.Module, Tensor]:
    """Return a network none of whose norms are fresh, and inputs of few numbers."""
    torch.manual_seed(0)
    factory, shape = (NETS | SEGMENTATION)[name]
    network = factory().eval()
    with torch.no_grad():
        for norm in network.modules():
            if isinstance(norm, nn.modules.batchnorm._BatchNorm):
                norm.running_mean.normal_(0, 0.1)  # type: ignore[union-attr]
                norm.running_var.uniform_(0.5, 2)  # type: ignore[union-attr]
    return network, numbers(*shape)
