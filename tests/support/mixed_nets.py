"""Small networks that read values as tokens and as signals or images, and return parts of them."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.support.integer_nets import numbers
from tests.support.transformer_nets import Made, lively
from tests.support.tricky_nets import Net


def _speech(s: Any, x: Tensor) -> Any:
    """Signals, tokens that attend, signals twice as long; the first token as it is."""
    x = F.relu(s.widen(s.conv(x))).transpose(1, 2) + s.places
    q, k, v = s.qkv(s.norm(x)).chunk(3, -1)
    x = x + F.scaled_dot_product_attention(q, k, v)
    y = F.interpolate(x.transpose(1, 2), scale_factor=2.0, mode="linear")
    return s.up(s.same(y)), x[:, 0], s.head(x.mean(1))


def speech() -> Made:
    torch.manual_seed(0)
    net = Net(
        _speech, conv=nn.Conv1d(6, 20, 5, 2, 2), widen=nn.Conv1d(20, 20, 3, padding=1, groups=20),
        norm=nn.LayerNorm(20), qkv=nn.Linear(20, 60), same=nn.Conv1d(20, 12, 3, padding=1),
        up=nn.ConvTranspose1d(12, 5, 4, 2, 1), head=nn.Linear(20, 3),
    )  # fmt: skip
    net.places = nn.Parameter(torch.randn(1, 10, 20))
    return lively(net), numbers(3, 6, 20)


def _signals(s: Any, x: Tensor) -> Any:
    """Constants beside signals and added to them, gates per channel."""
    x = torch.cat([s.token.expand(x.shape[0], -1, -1), s.conv(x) + s.places], 2)
    y = x * torch.sigmoid(s.gate(F.adaptive_avg_pool1d(x, 1))) * s.factors
    return s.last(torch.cat([y, F.max_pool1d(y, 3, 1, 1)], 1)), y[:, :3], y.flatten(1)[:, :40]


def signals() -> Made:
    torch.manual_seed(0)
    net = Net(
        _signals, conv=nn.Conv1d(6, 20, 3), gate=nn.Conv1d(20, 20, 1), last=nn.Conv1d(40, 5, 3)
    )
    net.token, net.places = nn.Parameter(torch.randn(1, 20, 1)), nn.Parameter(torch.randn(20, 11))
    net.factors = nn.Parameter(torch.rand(20, 1))
    return lively(net), numbers(3, 6, 13)


def _grids(s: Any, x: Tensor) -> Any:
    """Images and grids of tokens, resized, pooled within a border and transposed."""
    x = s.conv(x)
    y = s.dense(s.norm(x.permute(0, 2, 3, 1)))
    z = F.max_pool2d(y.permute(0, 3, 1, 2), 3, 2, 1)
    z = F.interpolate(z, size=x.shape[2:], mode="bilinear")
    return s.up(y.permute(0, 3, 1, 2)), x + z, y, y.permute(0, 3, 1, 2), y.flatten(1)[:, :50]


def grids() -> Made:
    torch.manual_seed(0)
    net = Net(
        _grids, conv=nn.Conv2d(3, 20, 3), norm=nn.LayerNorm(20), dense=nn.Linear(20, 20),
        up=nn.ConvTranspose2d(20, 4, 3, 2, 1, 1),
    )  # fmt: skip
    return lively(net), numbers(2, 3, 11, 9)


def _tokens(s: Any, x: Tensor) -> Any:
    """Tokens that come as such, and a convolution over them."""
    y = s.dense(x)
    return s.norm(y) + s.conv(y.transpose(1, 2)).transpose(1, 2), y.transpose(1, 2), y[:, :, 0]


def tokens() -> Made:
    torch.manual_seed(0)
    net = Net(
        _tokens, dense=nn.Linear(6, 12), norm=nn.LayerNorm(12), conv=nn.Conv1d(12, 12, 3, padding=1)
    )
    return lively(net), numbers(3, 9, 6)


NETS: dict[str, Callable[[], Made]] = {
    "speech": speech, "signals": signals, "grids": grids, "tokens": tokens,
}  # fmt: skip
"""Each returns several tensors."""
