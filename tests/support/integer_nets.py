"""Networks whose layers an executor of integers must get right, and inputs for them."""

from collections.abc import Callable

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

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


NETS: dict[str, Callable[[], tuple[nn.Module, Tensor]]] = {
    "odd": lambda: (Odd().eval(), numbers(5, 3, 12, 8)),
    "residual": lambda: (residual(), images()),
    "mlp": lambda: (mlp(), images()),
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
