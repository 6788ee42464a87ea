"""Small networks of what channels pass: detectors, attention, tied and auxiliary layers."""

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.support.integer_nets import numbers
from tests.support.tricky_nets import Net, conv

Made = tuple[nn.Module, Tensor]
IMAGES = (2, 3, 6, 6)
TOKENS = (2, 5, 4)


def net(how: Callable[[Any, Tensor], Any], *shape: int, **layers: Any) -> Made:
    """Return a network of layers and a forward, and its inputs: images, by default."""
    network = Net(how, **layers)
    return network, numbers(*(shape or IMAGES))


def between(*layers: Any, channels: int = 8) -> Made:
    """Return a network of layers between two convolutions."""
    return nn.Sequential(conv(3, 8, 1), *layers, conv(channels, 4, 1)), numbers(*IMAGES)


def maps(how: Callable[[Tensor], Tensor], channels: int = 8) -> Made:
    """Return a network of a function between two convolutions."""
    return net(lambda s, x: s.head(how(s.stem(x))), stem=conv(3, 8, 1), head=conv(channels, 4, 1))


def eight(y: Tensor) -> Tensor:
    """Ask for eight channels."""
    torch._assert(y.shape[1] == 8, "eight channels")
    return y


@torch.fx.wrap
def normalize(y: Tensor) -> Tensor:
    """Divide by the channels' sum, which torch's function of this name does not."""
    return y / y.sum(1, keepdim=True)


def normalized(y: Tensor) -> Tensor:
    return normalize(y)


class Yolo(nn.Module):
    """SiLU, a split whose parts are chained, max-pools side by side, upsampling, three outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = self.block(3, 8, stride=2)
        self.split, self.inner = self.block(8, 8, kernel=1), self.block(4, 4)
        self.fuse = self.block(12, 8, kernel=1)
        self.down = self.block(8, 16, stride=2)
        self.reduce, self.after = self.block(16, 8, kernel=1), self.block(32, 16, kernel=1)
        self.up = self.block(24, 8)
        self.heads = nn.ModuleList([nn.Conv2d(8, 6, 1), nn.Conv2d(16, 6, 1), nn.Conv2d(16, 6, 1)])

    @staticmethod
    def block(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Module:
        layer = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
        return nn.Sequential(layer, nn.BatchNorm2d(outputs), nn.SiLU(inplace=True))

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.stem(x)
        a, b = self.split(x).chunk(2, 1)
        x = self.fuse(torch.cat([a, b, b + self.inner(b)], 1))
        y = self.reduce(self.down(x))
        p = F.max_pool2d(y, 5, 1, 2)
        q = F.max_pool2d(p, 5, 1, 2)
        y = self.after(torch.cat([y, p, q, F.max_pool2d(q, 5, 1, 2)], 1))
        up = self.up(torch.cat([F.interpolate(y, scale_factor=2.0), x], 1))
        return [head(v) for head, v in zip(self.heads, (up, y, F.max_pool2d(y, 2)), strict=True)]


class UNet(nn.Module):
    """Skips by concatenation, with borders by the sizes of images."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = conv(3, 8, 3, padding=1), conv(8, 16, 3, padding=1)
        self.up, self.c, self.head = (
            nn.ConvTranspose2d(16, 8, 2, 2), conv(16, 8, 3, padding=1), conv(8, 2, 1),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        a = F.relu(self.a(x))
        up = self.up(F.relu(self.b(F.max_pool2d(a, 2))))
        rows, columns = a.size(2) - up.size(2), a.size(3) - up.size(3)
        up = F.pad(up, [columns // 2, columns - columns // 2, rows // 2, rows - rows // 2])
        return cast(Tensor, self.head(F.relu(self.c(torch.cat([a, up], 1)))))


class Mixer(nn.Module):
    """Linear layers over tokens and over channels."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.norm, self.head = nn.Linear(4, 8), nn.LayerNorm(8), nn.Linear(8, 3)
        self.tokens = nn.Sequential(nn.Linear(5, 12), nn.GELU(), nn.Linear(12, 5))
        self.channels = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 8))

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        x = x + self.tokens(self.norm(x).transpose(1, 2)).transpose(1, 2)
        return cast(Tensor, self.head((x + self.channels(self.norm(x))).mean(1)))


class Attention(nn.Module):
    """Attention by hand, by torch's function, or over channels, with two heads."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.qkv, self.out, self.head = nn.Linear(4, 24), nn.Linear(8, 4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        n, t, _ = x.shape
        q, k, v = self.qkv(x).reshape(n, t, 3, 2, -1).permute(2, 0, 3, 1, 4).unbind(0)
        if self.kind == "by hand":
            y = (q @ k.transpose(-2, -1) * 0.5).softmax(-1) @ v
        elif self.kind == "exponentials":  # of channels that are gone 1 would stay in the sum
            y = (q.exp() @ k.exp().transpose(-2, -1)).softmax(-1) @ v
        elif self.kind == "over channels":
            y = F.scaled_dot_product_attention(*(z.transpose(-1, -2) for z in (q, k, v))).transpose(
                -1, -2
            )
        else:
            scale = 0.5 if self.kind == "scaled" else None
            y = F.scaled_dot_product_attention(q, k, v, scale=scale)
        return cast(Tensor, self.head(self.out(y.transpose(1, 2).reshape(n, t, -1))))


class ReadInTraining(nn.Module):
    """Reads in training, as a whole, a tensor that evaluation combines with channels."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head = conv(3, 8, 1), conv(3, 8, 1), conv(8, 4, 1)
        self.scale = nn.Parameter(torch.ones(1, 8, 6, 6))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            return cast(Tensor, self.head(self.b(x)) * F.conv2d(self.scale, self.scale))
        return cast(Tensor, self.head(self.a(x) * self.scale) + self.head(self.b(x)))


class Auxiliary(nn.Module):
    """Reaches a head in training only, and its main head from elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = conv(3, 8, 1), conv(8, 8, 1), conv(8, 8, 1)
        self.head, self.extra = conv(8, 4, 1), conv(8, 2, 1)

    def forward(self, x: Tensor) -> Any:
        y = self.a(x).relu()
        z = self.b(y).relu()
        if self.training:
            return self.head(z), self.head(y), self.extra(self.c(y))
        return self.head(z)


def tied() -> Made:
    one, other = nn.Linear(8, 8), nn.Linear(8, 8)
    other.weight = one.weight
    return net(
        lambda s, x: s.head(s.other(s.one(s.stem(x)).relu())), *TOKENS, stem=nn.Linear(4, 8), one=one,
        other=other, head=nn.Linear(8, 3),
    )  # fmt: skip


def read_under_another_name() -> Made:
    """One parameter of two layers: one is called, the other one's is read by the forward."""
    one, other = nn.Linear(8, 8), nn.Linear(8, 8)
    other.weight = one.weight
    return net(
        lambda s, x: s.head(F.linear(s.other(s.stem(x)), s.one.weight)), *TOKENS,
        stem=nn.Linear(4, 8), one=one, other=other, head=nn.Linear(8, 3),
    )  # fmt: skip


def language(*, hidden: int = 8) -> Made:
    embed, out = nn.Embedding(10, 8), nn.Linear(8, 10, bias=False)
    out.weight = embed.weight
    model = nn.Sequential(embed, nn.Linear(8, hidden), nn.ReLU(), nn.Linear(hidden, 8), out)
    return model, torch.arange(10).view(2, 5)
