"""Networks that a file can name, so that it loads without a factory of the user's."""

import warnings
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from compression.checks import is_whole
from compression.errors import CompressionError


def _models() -> Any:
    """Return torchvision's models; importing them takes longer than all of compression."""
    from torchvision import models

    return models


TIMM = "timm:"
"""Begins the names of timm's models."""


def _timm() -> Any:
    try:
        import timm
    except ImportError as error:
        raise CompressionError(
            f"architectures named {TIMM}NAME need the package timm: pip install timm"
        ) from error
    return timm


@dataclass(frozen=True, slots=True)
class Architecture:
    """A network by name and number of classes; called, it returns a fresh one, as a factory does.

    `name` is one of torchvision's classification models, one of timm's as "timm:resnet26d" (with the
    package timm), "resnet18-cifar" (He et al. 2016, arXiv:1512.03385, 4.2: conv1 3x3 of stride 1, no
    max-pool) or "five-layer-cnn" (the paper's student). CompressionError for another name, and for a
    number of classes out of 1..100,000.

    >>> Architecture("five-layer-cnn", num_classes=10)()[-1]
    Linear(in_features=600, out_features=10, bias=True)
    """

    name: str
    num_classes: int

    def __post_init__(self) -> None:
        """Refuse what cannot be built."""
        if not isinstance(self.name, str) or not _is_known(self.name):
            raise CompressionError(
                f"unknown architecture {self.name!r}: choose {', '.join(OWN)}, or one of "
                f"torchvision.models.list_models(torchvision.models); {TIMM}NAME is one of "
                "timm.list_models()"
            )
        count = self.num_classes
        if not is_whole(count) or not 1 <= count <= _MOST_CLASSES:
            raise CompressionError(f"num_classes must lie in 1..{_MOST_CLASSES}, found {count!r}")

    def __call__(self) -> nn.Module:
        """Return the network with weights drawn at random."""
        if self.name in OWN:
            return OWN[self.name](self.num_classes)
        if self.name.startswith(TIMM):
            return _of_timm(self.name, self.num_classes)
        with warnings.catch_warnings():  # of GoogLeNet and Inception: another drawing is to come
            warnings.simplefilter("ignore", FutureWarning)
            network: nn.Module = _models().get_model(
                self.name, weights=None, num_classes=self.num_classes
            )
        return network

    def about_bytes(self) -> int:
        """Return what the network takes in float32, about, without building it."""
        head = 4096 * self.num_classes  # of the widest last layer there is
        if self.name in OWN:
            return 4 * (sum(p.numel() for p in OWN[self.name](1).parameters()) + head)
        if self.name.startswith(TIMM):
            with torch.device("meta"):
                return 4 * (sum(p.numel() for p in _of_timm(self.name, 1).parameters()) + head)
        weights = next(iter(_models().get_model_weights(self.name)))
        return 4 * (int(weights.meta["num_params"]) + head)


def _is_known(name: str) -> bool:
    if name.startswith(TIMM):
        return bool(_timm().is_model(name.removeprefix(TIMM)))
    return name in OWN or name in _models().list_models(_models())


def _of_timm(name: str, num_classes: int) -> nn.Module:
    network: nn.Module = _timm().create_model(name.removeprefix(TIMM), num_classes=num_classes)
    return network


# A hostile file must not have a last layer of terabytes built before it is compared.
_MOST_CLASSES = 100_000


def resnet18_cifar(num_classes: int) -> nn.Module:
    """Return ResNet-18 with a CIFAR stem."""
    model: nn.Module = _models().resnet18(num_classes=num_classes)
    model.conv1 = nn.Conv2d(3, 64, 3, stride=1, padding=1, bias=False)
    model.maxpool = nn.Identity()
    return model


def five_layer_cnn(num_classes: int) -> nn.Module:
    """Return three convolutions and two linear layers, at most 5.19 MiB: the paper's student, after Li.

    It takes any input of 32 pixels or more: the last pool is adaptive, to 4x4.
    """

    def stage(inputs: int, outputs: int) -> list[nn.Module]:
        conv = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        return [conv, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True), nn.MaxPool2d(2)]

    return nn.Sequential(
        *stage(3, 32),
        *stage(32, 64),
        *stage(64, 128),
        nn.AdaptiveAvgPool2d(4),
        nn.Flatten(),
        nn.Linear(128 * 4 * 4, 600),
        nn.ReLU(inplace=True),
        nn.Linear(600, num_classes),
    )


OWN = {"resnet18-cifar": resnet18_cifar, "five-layer-cnn": five_layer_cnn}
