"""The networks of the paper: ResNet-18 with two stems, and the five-layer student."""

import torch
from torch import nn

from compression.architectures import Architecture


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


def five_layer_cnn() -> nn.Module:
    """The paper's student, at most 5.19 MiB, for inputs of 32 pixels or more."""
    return Architecture("five-layer-cnn", 10)()


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
