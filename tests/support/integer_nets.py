"""Networks whose layers an executor of integers must get right, and inputs for them."""

from collections.abc import Callable
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from tests.support.nets import images, mlp, residual


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


class Odd(nn.Module):
    """Channels, windows and borders that fill no vector; a sum and a concatenation of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 70, 3, padding=2, dilation=2)
        self.b = nn.Conv2d(70, 33, (3, 2), stride=(2, 1), padding=(1, 0))
        self.c = nn.Conv2d(33, 33, 5, padding=2, groups=33)
        self.d = nn.Conv2d(33, 33, 1)
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.mean = nn.AvgPool2d(2)
        self.head = nn.Linear(66 * 1 * 2, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.b(torch.relu(self.a(x))))
        y = nn.functional.relu6(self.c(x) + x)
        z = torch.cat([self.d(y), y], 1)
        return self.head(torch.flatten(self.mean(self.pool(torch.relu(z))), 1))


class Depthwise(nn.Module):
    """One filter per channel behind a layer whose codes' zero is not 0, with a sum or real outputs."""

    def __init__(self, channels: int, *, added: bool, real: bool, **window: Any) -> None:
        super().__init__()
        self.a = nn.Conv2d(2, channels, 1)
        self.b = nn.Conv2d(channels, channels, groups=channels, **window)
        windows = zip(self.b.kernel_size, self.b.dilation, self.b.padding, strict=True)
        same = self.b.stride == (1, 1) and all(2 * p == d * (k - 1) for k, d, p in windows)
        self.added, self.real = added and same, real

    def forward(self, x: Tensor) -> Tensor:
        x = F.leaky_relu(self.a(x))
        y = self.b(x)
        y = y + x if self.added else y
        return y if self.real else torch.relu(y).mean((2, 3))


class Gates(nn.Module):
    """Tables and products: squeeze and excite, halves that gate each other, a square."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 38, 3, padding=1)
        self.squeeze, self.excite = nn.Conv2d(38, 5, 1), nn.Conv2d(5, 38, 1)
        self.b = nn.Conv2d(19, 19, 3, padding=1, groups=19)
        self.head = nn.Linear(19, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.silu(self.a(x))
        x = torch.sigmoid(self.excite(F.relu(self.squeeze(x.mean((2, 3), keepdim=True))))) * x
        y, z = x.chunk(2, 1)
        y = F.gelu(self.b(y)) * z
        return self.head((y * y).mean((2, 3)))


class Moves(nn.Module):
    """What puts codes elsewhere, between layers that need borders: shuffles, parts, larger maps."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 24, 3), nn.Conv2d(24, 8, 3, padding=1)
        self.c, self.d = nn.Conv2d(2, 7, 3, padding=2), nn.Conv2d(3, 4, 1)
        self.head = nn.Linear(4 * 15 * 5, 6)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        n, c, h, w = x.shape
        x = x.view(n, 2, c // 2, h, w).transpose(1, 2).contiguous().view(n, c, h, w)
        x = F.interpolate(F.pixel_shuffle(self.b(x.flip(1)), 2), scale_factor=(1, 2))
        x = self.c(x)[:, 1::2, 1:-1, ::3].transpose(2, 3)
        return self.head(self.d(x).permute(0, 2, 3, 1).flatten(1)[:, :300])


class Resized(nn.Module):
    """Linear interpolation to a size and to another map's, between layers that need borders."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 38, 3, padding=1), nn.Conv2d(38, 7, 3, padding=2)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.silu(self.a(x)), 3, 1, 1)  # the border's code of 0 is not the least
        y = self.b(F.interpolate(x, size=(5, 9), mode="bilinear"))
        return F.interpolate(y, x.shape[2:], mode="bilinear", align_corners=True)


def transposed() -> nn.Module:
    """Outputs of four phases and of one, some without a tap; the last are the network's."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 5, 1), nn.SiLU(), nn.ConvTranspose2d(5, 33, (1, 3), 2, (0, 1), (1, 0)),
        nn.ReLU(), nn.ConvTranspose2d(33, 4, 3, 1, 1, dilation=2),
    )  # fmt: skip


def pairs() -> nn.Module:
    """Two channels, every other pixel: as far as blocks of 64 reach beyond the codes of an image."""
    first, second = nn.Conv2d(3, 2, 1), nn.Conv2d(2, 2, 3, 2, padding=1, groups=2)
    return nn.Sequential(first, nn.ReLU(), second, nn.Flatten())


def grouped() -> nn.Module:
    """Groups of few and of many channels, with a residual; pools over a border and rounded up."""
    torch.manual_seed(0)
    first = nn.Conv2d(3, 36, 3, padding=1)
    return Pooled(first, nn.Conv2d(36, 36, 3, padding=1, groups=12), nn.Conv2d(36, 66, 3, groups=2))


def narrow() -> nn.Module:
    """Groups of 4 and of 8 channels; the last 8 alone."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 64, 1), nn.ReLU(), nn.Conv2d(64, 64, 3, padding=1, groups=16), nn.ReLU(),
        nn.Conv2d(64, 40, 1), nn.ReLU(), nn.Conv2d(40, 40, 3, 2, groups=5), nn.Flatten(),
    )  # fmt: skip


class Pooled(nn.Module):
    """Three convolutions, a sum, a max-pool that rounds up and an average over a border."""

    def __init__(self, a: nn.Module, b: nn.Module, c: nn.Module) -> None:
        super().__init__()
        self.a, self.b, self.c = a, b, c
        self.largest, self.mean = nn.MaxPool2d(2, ceil_mode=True), nn.AvgPool2d(3, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.a(x))
        x = torch.relu(self.c(torch.relu(x + self.b(x))))
        return self.mean(self.largest(x)).flatten(1)


NETS: dict[str, Callable[[], tuple[nn.Module, Tensor]]] = {
    "odd": lambda: (Odd().eval(), numbers(5, 3, 12, 8)),
    "residual": lambda: (residual(), images()),
    "mlp": lambda: (mlp(), images()),
    "gates": lambda: (Gates().eval(), numbers(3, 3, 6, 5)),
    "moves": lambda: (Moves().eval(), numbers(3, 3, 7, 8)),
    "resized": lambda: (Resized().eval(), numbers(3, 3, 6, 1)),
    "transposed": lambda: (transposed().eval(), numbers(3, 3, 4, 3)),
    "groups": lambda: (grouped().eval(), numbers(3, 3, 9, 7)),
    "narrow groups": lambda: (narrow().eval(), numbers(3, 3, 7, 5)),
    "depthwise": lambda: (pairs().eval(), numbers(3, 3, 5, 5)),
    "codes out": lambda: (nn.Sequential(nn.Linear(20, 7), nn.ReLU()).eval(), numbers(9, 20)),
}


@st.composite
def convolutions(draw: st.DrawFn) -> tuple[nn.Module, Tensor]:
    """Any convolution behind another, whose zero point is 0 or not, and images for it."""
    channels = draw(st.tuples(st.integers(1, 9), st.integers(1, 70)))
    size = draw(st.tuples(st.integers(1, 9), st.integers(1, 9)))
    kernel = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    stride, padding, dilation = (draw(st.integers(*r)) for r in ((1, 3), (0, 1), (1, 2)))
    reach = [dilation * (k - 1) + 1 for k in kernel]
    if any(n + 2 * padding < r for n, r in zip(size, reach, strict=True)):
        size = (9, 9)
    torch.manual_seed(0)
    first = nn.Conv2d(2, channels[0], 1)
    second = nn.Conv2d(*channels, kernel, stride=stride, padding=padding, dilation=dilation)
    middle = nn.ReLU() if draw(st.booleans()) else nn.Identity()
    pool = nn.AdaptiveAvgPool2d(1)
    model = nn.Sequential(first, middle, second, nn.ReLU(), pool, nn.Flatten()).eval()
    return model, numbers(3, 2, *size)


@st.composite
def depthwise(draw: st.DrawFn) -> tuple[nn.Module, Tensor]:
    """One filter per channel: any kernel, step, border and map, some smaller than the kernel."""
    channels = draw(st.sampled_from((2, 15, 16, 33, 63, 64, 65, 96, 130)))
    size = draw(st.tuples(st.integers(1, 9), st.integers(1, 13)))
    kernel = draw(st.tuples(*[st.sampled_from((1, 2, 3, 4, 5, 7))] * 2))
    stride, padding, dilation = (
        draw(st.tuples(*[st.integers(*r)] * 2)) for r in ((1, 3), (0, 4), (1, 3))
    )
    reach = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    missing = [r - n for r, n in zip(reach, size, strict=True)]
    padding = tuple(max(p, -(-m // 2)) for p, m in zip(padding, missing, strict=True))
    torch.manual_seed(0)
    model = Depthwise(
        channels, added=draw(st.booleans()), real=draw(st.booleans()), kernel_size=kernel,
        stride=stride, padding=padding, dilation=dilation,
    )  # fmt: skip
    return model.eval(), numbers(draw(st.sampled_from((1, 3))), 2, *size)
