"""Small networks of which operators stay in float32 under fallback=True."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.support.integer_nets import numbers
from tests.support.tricky_nets import Net


class Mixed(nn.Module):
    """A norm of groups, an angle to a parameter, a made constant, a softmax over queries."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.GroupNorm(2, 8)
        self.scale = nn.Parameter(torch.rand(8, 1, 1))
        self.bias = nn.Parameter(torch.randn(5, 20))
        self.register_buffer("places", torch.arange(20) % 5)
        self.qkv, self.head = nn.Linear(8, 24), nn.Linear(8, 6)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(torch.atan2(F.silu(self.a(x)), self.scale))
        x = x.flatten(2).transpose(1, 2)
        q, k, v = self.qkv(x).chunk(3, -1)
        seen = torch.maximum(q @ k.transpose(1, 2) * 0.3, self.bias[self.places]).softmax(1)
        return self.head((seen @ v).mean(1))


def _hidden(s: Any, x: Tensor) -> Tensor:
    _, (h, _) = s.r(s.a(x).mean(3).transpose(1, 2))
    return s.f(torch.cat([h[-2], h[-1]], 1))  # type: ignore[no-any-return]


def _cell(s: Any, x: Tensor) -> Tensor:
    return s.f(s.r(s.a(x).flatten(2).transpose(1, 2))[1][0])  # type: ignore[no-any-return]


def _attended(s: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    x = s.a(x).flatten(2).transpose(1, 2)
    return s.r(x, x, x)  # type: ignore[no-any-return]


_LSTM = partial(nn.LSTM, 8, 4, batch_first=True)
_ATTENTION = partial(nn.MultiheadAttention, 8, 2, batch_first=True)
_PARTS: dict[str, tuple[Callable[[Any, Tensor], Any], Callable[[], nn.Module]]] = {
    "a value and its place": (lambda s, x: s.f(s.a(x).max(3)[0].amax(2)), nn.Identity),
    "by name": (lambda s, x: s.f(s.a(x).flatten(2).topk(2).values.mean(2)), nn.Identity),
    "sequences": (lambda s, x: s.r(s.a(x).mean(3).transpose(1, 2))[0], _LSTM),
    "states": (_hidden, partial(_LSTM, bidirectional=True)),
    "a cell": (_cell, partial(nn.GRU, 8, 8)),
    "weights of attention": (_attended, _ATTENTION),
}
PARTS = tuple(_PARTS)
"""Networks that take one tensor, or more, of several that an operator gives."""


def parts(name: str) -> nn.Module:
    """Return the network of PARTS, for inputs (N, 3, 6, 4)."""
    how, make = _PARTS[name]
    torch.manual_seed(0)
    return Net(how, a=nn.Conv2d(3, 8, 3, padding=1), r=make(), f=nn.Linear(8, 2)).eval()


def _own(s: Any, x: Tensor) -> Tensor:
    return s.r(x)  # type: ignore[no-any-return]


def _first(s: Any, x: Tensor) -> Tensor:
    return s.r(x)[0]  # type: ignore[no-any-return]


def _weights(*shape: int) -> Callable[[], nn.Parameter]:
    return lambda: nn.Parameter(torch.randn(shape))


def _border(mode: str) -> Callable[[], nn.Module]:
    return partial(nn.Conv2d, 8, 4, 3, padding=1, padding_mode=mode)


_RECURRENT: dict[str, Any] = {"input_size": 8, "hidden_size": 6, "batch_first": True}
_MAPS, _ROWS = (8, 6, 4), (6, 8)
_Operator = tuple[Callable[[Any, Tensor], Tensor], Callable[[], Any], tuple[int, ...]]
_OPERATORS: dict[str, _Operator] = {
    "softmax": (lambda _, x: x.softmax(1), nn.Identity, _MAPS),
    "einsum": (lambda _, x: torch.einsum("nld,nmd->nlm", x, x), nn.Identity, _ROWS),
    "product of matrices": (lambda _, x: x @ F.relu(x).transpose(1, 2), nn.Identity, _ROWS),
    "angle to a parameter": (
        # torch 2.14's exporter takes the angle of 0 to a negative number for -pi.
        lambda s, x: torch.atan2(x, s.r.abs()), _weights(8, 1, 1), _MAPS
    ),
    "a value and its place": (lambda _, x: x.max(3)[0], nn.Identity, _MAPS),
    "values by name": (lambda _, x: x.flatten(2).topk(2).values, nn.Identity, _MAPS),
    "angle between rows": (
        lambda _, x: F.cosine_similarity(x[:, :1], x[:, 1:], dim=2), nn.Identity, _ROWS
    ),
    "norm of images": (
        _own, partial(nn.InstanceNorm2d, 8, affine=True, track_running_stats=True), _MAPS
    ),
    "norm of neighbours": (_own, partial(nn.LocalResponseNorm, 3), _MAPS),
    "cubic interpolation": (
        lambda _, x: F.interpolate(x, scale_factor=2, mode="bicubic"), nn.Identity, _MAPS
    ),
    "samples of a grid": (
        lambda _, x: F.grid_sample(x, x[:, :2].permute(0, 2, 3, 1), align_corners=False),
        nn.Identity, _MAPS,
    ),
    "a transposed convolution": (
        lambda s, x: F.conv_transpose2d(x, s.r), _weights(8, 4, 2, 2), _MAPS
    ),
    "a border that mirrors": (_own, _border("reflect"), _MAPS),
    "a border that wraps": (_own, _border("circular"), _MAPS),
    "windows side by side": (_own, partial(nn.Unfold, 3, padding=1), _MAPS),
    "LSTM": (_first, partial(nn.LSTM, **_RECURRENT), _ROWS),
    "two layers both ways": (
        _first, partial(nn.LSTM, **_RECURRENT, num_layers=2, bidirectional=True, dropout=0.3), _ROWS
    ),
    "last state": (
        lambda s, x: s.r(x)[1][0][-1], partial(nn.LSTM, **_RECURRENT, bias=False), _ROWS
    ),
    "GRU": (_first, partial(nn.GRU, **_RECURRENT), _ROWS),
    "RNN": (_first, partial(nn.RNN, **_RECURRENT, nonlinearity="relu"), _ROWS),
    "weights of attention": (lambda s, x: s.r(x, x, x)[1], _ATTENTION, _ROWS),
    "layer of a transformer": (
        _own,
        partial(nn.TransformerEncoderLayer, 8, 2, 16, batch_first=True, activation=F.relu6),
        _ROWS,
    ),
}  # fmt: skip
OPERATORS = tuple(_OPERATORS)
"""Networks of one operator, which reads the input and is an output, beside a linear layer."""


def single(name: str) -> tuple[nn.Module, Tensor]:
    """Return the network of OPERATORS and inputs."""
    how, make, shape = _OPERATORS[name]
    torch.manual_seed(0)
    net = Net(lambda s, x: (how(s, x), s.f(x)), r=make(), f=nn.Linear(shape[-1], 2))  # type: ignore[arg-type,return-value]
    return net.eval(), numbers(7, *shape)


class Sequences(nn.Module):
    """A classifier of sequences by what an LSTM makes of both directions."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Linear(6, 16)
        self.lstm = nn.LSTM(16, 12, 2, bidirectional=True, batch_first=True)
        self.head = nn.Linear(24, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(self.embed(x))[0][:, -1])  # type: ignore[no-any-return]
