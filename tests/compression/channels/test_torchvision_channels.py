"""torchvision's families without channels give what they give with zeros in their place."""

import pytest
import torch
from torchvision import models

from compression.channels import cut, follow
from tests.support.removed import check_cut, random_gone
from tests.support.small_torchvision import SMALL, made

ATTENTIVE = ("convnext", "vit", "swin", "swin_v2", "maxvit")
"""Their LayerNorms count the channels of the trunk: only what is within a block goes."""


@pytest.mark.parametrize("name", SMALL)
def test_a_network_of_each_family(name: str) -> None:
    size = SMALL[name][1]
    x, other = torch.randn(2, 1, 3, size, size, generator=torch.Generator().manual_seed(0)).double()
    assert check_cut(made(name), (x,), (other,)) < (0.9 if name in ATTENTIVE else 0.35)


@pytest.mark.filterwarnings("ignore:The default weight initialization:FutureWarning")
def test_heads_of_training_take_what_is_left() -> None:
    model = models.googlenet(weights=None, init_weights=False, aux_logits=True, num_classes=4)
    x = torch.randn(2, 3, 32, 32)
    channels = follow(model, (x,))
    smaller = cut(model, channels, random_gone(channels, 0)[0])
    assert smaller.aux1.conv.conv.in_channels < 512
    assert [tuple(out.shape) for out in smaller.train()(x)] == [(2, 4)] * 3
    assert smaller.eval()(x).shape == (2, 4)
