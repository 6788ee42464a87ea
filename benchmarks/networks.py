"""The networks of the paper: ResNet-18 with two stems, and the five-layer student."""

import torch
from torch import nn
from torchvision.models import resnet18


def resnet18_10() -> nn.Module:
    """torchvision's ResNet-18 with 10 classes: the paper's 42.69 MiB."""
    return resnet18(num_classes=10)  # type: ignore[no-any-return]


def resnet18_cifar() -> nn.Module:
    """ResNet-18 with a CIFAR stem: 3x3 stride-1 conv1 and no max-pool (He et al. 2016, 4.2)."""
    model = resnet18(num_classes=10)
    model.conv1 = nn.Conv2d(3, 64, 3, stride=1, padding=1, bias=False)
    model.maxpool = nn.Identity()
    return model  # type: ignore[no-any-return]


def resnet18_imagenet() -> nn.Module:
    """ResNet-18 from ImageNet weights where they can be had, with a new head of 10 classes."""
    model = resnet18(weights="IMAGENET1K_V1")
    model.fc = nn.Linear(model.fc.in_features, 10)
    return model  # type: ignore[no-any-return]


def five_layer_cnn() -> nn.Module:
    """Three convolutions and two linear layers (the paper's student, after Li), at most 5.19 MiB.

    Takes any input of 32 pixels or more: the last pool is adaptive, to 4x4.
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
        nn.Linear(600, 10),
    )


@torch.no_grad()
def uneven_norms(model: nn.Module) -> nn.Module:
    """Draw each batch norm's scale and shift in place, so that none is the identity of a new one."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.8, 1.2)
            nn.init.uniform_(module.bias, -0.2, 0.2)
    return model
