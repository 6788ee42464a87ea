"""A small network of each family of torchvision's, of its own blocks: name -> network, pixels."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn
from torchvision import models
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.models.convnext import CNBlockConfig
from torchvision.models.densenet import DenseNet
from torchvision.models.efficientnet import EfficientNet, FusedMBConvConfig, MBConvConfig
from torchvision.models.maxvit import MaxVit
from torchvision.models.mobilenetv3 import InvertedResidualConfig, MobileNetV3
from torchvision.models.regnet import BlockParams, RegNet
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet
from torchvision.models.segmentation import LRASPP
from torchvision.models.segmentation.fcn import FCN, FCNHead
from torchvision.models.shufflenetv2 import ShuffleNetV2
from torchvision.models.swin_transformer import (
    PatchMergingV2,
    SwinTransformer,
    SwinTransformerBlock,
    SwinTransformerBlockV2,
)

_SWIN: dict[str, Any] = {
    "patch_size": [4, 4],
    "embed_dim": 8,
    "depths": [1, 1],
    "num_heads": [2, 2],
    "window_size": [4, 4],
    "num_classes": 5,
}


def _resnext() -> nn.Module:
    model: Any = ResNet(Bottleneck, [1, 1, 1, 1], groups=8, width_per_group=4)
    model.layer3, model.layer4, model.fc = nn.Identity(), nn.Identity(), nn.Linear(512, 5)
    return model  # type: ignore[no-any-return]


def _mobilenet_v3() -> nn.Module:
    row: Any = partial(InvertedResidualConfig, width_mult=1.0)
    rows = [
        row(16, 3, 16, 16, True, "RE", 2, 1),
        row(16, 5, 24, 24, True, "HS", 2, 1),
        row(24, 5, 32, 24, True, "HS", 1, 1),
    ]
    return MobileNetV3(rows, last_channel=32, num_classes=5)


def _efficientnet() -> nn.Module:
    row = partial(MBConvConfig, width_mult=1.0, depth_mult=1.0)
    rows = [FusedMBConvConfig(2, 3, 2, 16, 16, 1), row(4, 3, 2, 16, 24, 2)]
    return EfficientNet(rows, dropout=0.1, num_classes=5, last_channel=32)


def _lraspp() -> nn.Module:
    features: Any = _mobilenet_v3().features
    backbone = IntermediateLayerGetter(features, {"1": "low", "3": "high"})
    return LRASPP(backbone, 16, 24, 4, 16)


def _fcn() -> nn.Module:
    resnet = ResNet(BasicBlock, [1, 1, 1, 1], num_classes=5)
    backbone = IntermediateLayerGetter(resnet, {"layer1": "aux", "layer2": "out"})
    return FCN(backbone, FCNHead(128, 4), FCNHead(64, 4))


SMALL: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "resnext": (_resnext, 32),
    "densenet": (lambda: DenseNet(8, (2, 2), 16, num_classes=5), 32),
    "squeezenet": (lambda: models.squeezenet1_1(num_classes=5), 40),
    "mobilenet_v2": (lambda: models.MobileNetV2(5, 0.25, [[1, 32, 1, 1], [4, 64, 2, 2]]), 32),
    "mobilenet_v3": (_mobilenet_v3, 32),
    "shufflenet": (lambda: ShuffleNetV2([2, 2, 2], [8, 16, 24, 32, 32], num_classes=5), 32),
    "efficientnet": (_efficientnet, 32),
    "regnet": (
        lambda: RegNet(
            BlockParams([1, 2], [16, 32], [8, 8], [1.0, 1.0], [2, 2], 0.25),
            num_classes=5,
            stem_width=8,
        ),
        32,
    ),
    "convnext": (
        lambda: models.ConvNeXt(
            [CNBlockConfig(8, 16, 1), CNBlockConfig(16, None, 1)], num_classes=5
        ),
        32,
    ),
    "vit": (lambda: models.VisionTransformer(16, 8, 2, 2, 16, 32, num_classes=5), 16),
    "swin": (lambda: SwinTransformer(block=SwinTransformerBlock, **_SWIN), 32),
    "swin_v2": (
        lambda: SwinTransformer(
            block=SwinTransformerBlockV2, downsample_layer=PatchMergingV2, **_SWIN
        ),
        32,
    ),
    "maxvit": (
        lambda: MaxVit((16, 16), 8, 4, [16], [1], 8, 0.1, num_classes=5),
        16,
    ),
    "lraspp": (_lraspp, 32),
    "fcn": (_fcn, 32),
}


def made(name: str) -> nn.Module:
    """Return a network in float64 none of whose numbers are those of a fresh one: heads of 0 count."""
    torch.manual_seed(0)
    model = SMALL[name][0]().eval().double()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.1)  # type: ignore[union-attr]
                module.running_var.uniform_(0.5, 2)  # type: ignore[union-attr]
                module.bias.normal_(0, 0.1)
            if isinstance(module, nn.Linear) and not module.weight.any():
                module.weight.normal_(0, 0.1)
    return model
