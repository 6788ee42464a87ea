"""The networks of the paper: ResNet-18 with two stems, and the five-layer student."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from compression.architectures import Architecture
from compression.errors import CompressionError

STAGES = {"2": "layer1", "6": "layer2", "10": "layer3"}
"""The five-layer student's activations, and the blocks of a ResNet at such a stride."""


def resnet18_10() -> nn.Module:
    """torchvision's ResNet-18 with 10 classes: the paper's 42.69 MiB."""
    return Architecture("resnet18", 10)()


def resnet18_cifar() -> nn.Module:
    """ResNet-18 with a CIFAR stem: 3x3 stride-1 conv1 and no max-pool (He et al. 2016, 4.2)."""
    return Architecture("resnet18-cifar", 10)()


def resnet18_imagenet() -> nn.Module:
    """ResNet-18 from ImageNet weights, with a new head of 10 classes."""
    from torchvision.models import resnet18  # it takes a second, which other networks save

    model = resnet18(weights="IMAGENET1K_V1")
    model.fc = nn.Linear(model.fc.in_features, 10)
    return model  # type: ignore[no-any-return]


def resnet50_1000() -> nn.Module:
    """torchvision's ResNet-50 with ImageNet's 1,000 classes."""
    return Architecture("resnet50", 1000)()


def resnet50_imagenet() -> nn.Module:
    """ResNet-50 with torchvision's weights, 80.9% on ImageNet by its authors' account."""
    from torchvision.models import resnet50

    return resnet50(weights="IMAGENET1K_V2")  # type: ignore[no-any-return]


def five_layer_cnn() -> nn.Module:
    """The paper's student, at most 5.19 MiB, for inputs of 32 pixels or more."""
    return Architecture("five-layer-cnn", 10)()


@dataclass(frozen=True, slots=True)
class FiveLayer:
    """The paper's student for other images and classes: called, it returns a fresh one."""

    channels: int
    num_classes: int

    def __call__(self) -> nn.Module:
        """Return the network with weights drawn at random."""
        model = Architecture("five-layer-cnn", self.num_classes)()
        if self.channels != 3:
            model[0] = nn.Conv2d(self.channels, 32, 3, padding=1, bias=False)  # type: ignore[operator]
        return model


@dataclass(frozen=True, slots=True)
class Named:
    """A network by the name of its architecture, whose classes are those of the data."""

    name: str

    def __call__(self) -> nn.Module:
        """Refuse to build what has no classes yet."""
        raise CompressionError(f"{self.name}: its number of classes is known with the data")

    def of(self, num_classes: int) -> Architecture:
        """Return the factory for so many classes; CompressionError for an unknown name."""
        return Architecture(self.name.removeprefix("torchvision:"), num_classes)


def named(name: str) -> Named:
    """Return, for a Workload's `network`, one by its name, with as many classes as the data has.

    `name` is torchvision:NAME of a classification model, timm:NAME with the package timm,
    "resnet18-cifar" or "five-layer-cnn" (compression.Architecture). An unknown one raises
    CompressionError before any image is decoded.

    >>> named("torchvision:mobilenet_v2").of(3)
    Architecture(name='mobilenet_v2', num_classes=3)
    """
    return Named(name)


def with_classes(network: Callable[[], nn.Module], num_classes: int) -> Callable[[], nn.Module]:
    """Return the factory of a named network for so many classes; another one as it is."""
    return network.of(num_classes) if isinstance(network, Named) else network


@torch.no_grad()
def uneven_norms(model: nn.Module) -> nn.Module:
    """Draw each batch norm's scale and shift in place, so that none is the identity of a new one."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.8, 1.2)
            nn.init.uniform_(module.bias, -0.2, 0.2)
    return model


def drawn(name: str, num_classes: int = 1000) -> nn.Module:
    """Return torchvision's network with weights drawn by seed 0, its batch norms not the identity.

    The cost of an image and the rounding of codes depend on the architecture, not on training.
    """
    torch.manual_seed(0)
    return uneven_norms(Architecture(name, num_classes)().eval())
