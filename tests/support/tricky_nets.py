"""Small networks that an executor or the ONNX export may get wrong: name -> network, images."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.support.integer_nets import numbers


class Net(nn.Module):
    """Layers by name, and a forward of (network, input)."""

    def __init__(self, how: Callable[[Any, Tensor], Tensor], **layers: nn.Module) -> None:
        super().__init__()
        self.how = how
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, x: Tensor) -> Tensor:
        return self.how(self, x)


def behind(pool: nn.Module, *, channels: int = 4, size: int = 9) -> tuple[nn.Module, Tensor]:
    """Return a network of a pool between a convolution and its outputs."""
    return nn.Sequential(nn.Conv2d(3, channels, 3, padding=1), pool), numbers(5, 3, size, size)


def conv(*args: Any, **options: Any) -> nn.Conv2d:
    return nn.Conv2d(*args, **options)


def flattened_residual() -> nn.Module:
    """The residual of `b` is `a`'s memory under another name, and is read again."""
    return Net(
        lambda s, x: s.head(
            torch.cat([y := torch.flatten(a := s.a(x), 1), torch.flatten(a + s.b(x), 1)], 1)
        )
        + s.other(y),
        a=conv(3, 4, 3, padding=1), b=conv(3, 4, 3, padding=1), head=nn.Linear(512, 6),
        other=nn.Linear(256, 6),
    )  # fmt: skip


def dead_filter() -> nn.Module:
    model = nn.Sequential(conv(3, 4, 3), nn.ReLU(), conv(4, 2, 1))
    with torch.no_grad():
        model[0].weight[1], model[0].bias[1] = 0, 0.5
    return model


IMAGES = (6, 3, 8, 8)
NETS: dict[str, Callable[[], tuple[nn.Module, Tensor]]] = {
    "average over a border": lambda: behind(nn.AvgPool2d(3, 1, 1)),
    "average without its border": lambda: behind(nn.AvgPool2d(3, 2, 1, count_include_pad=False)),
    "average, ceil_mode": lambda: behind(nn.AvgPool2d(2, 2, ceil_mode=True)),
    "average, ceil_mode and border": lambda: behind(nn.AvgPool2d(3, 2, 1, ceil_mode=True)),
    "average, ceil_mode without border": lambda: behind(
        nn.AvgPool2d(3, 2, 1, ceil_mode=True, count_include_pad=False), size=8
    ),
    "average with a divisor": lambda: behind(nn.AvgPool2d(2, divisor_override=1)),
    "average with a divisor and border": lambda: behind(nn.AvgPool2d(3, 2, 1, divisor_override=3)),
    "average of rows": lambda: behind(nn.AvgPool2d((1, 3), (1, 2))),
    "adaptive average": lambda: behind(nn.AdaptiveAvgPool2d(3)),
    "adaptive average, uneven": lambda: behind(nn.AdaptiveAvgPool2d((4, 2))),
    "mean over rows": lambda: (
        Net(lambda s, x: s.a(x).mean(2), a=conv(3, 4, 3, padding=1)),
        numbers(*IMAGES),
    ),
    "mean over channels": lambda: (
        Net(lambda s, x: s.a(x).mean(1, keepdim=True), a=conv(3, 4, 3, padding=1)),
        numbers(*IMAGES),
    ),
    "max-pool, border": lambda: behind(nn.MaxPool2d(3, 2, 1)),
    "max-pool, ceil_mode": lambda: behind(nn.MaxPool2d(3, 2, ceil_mode=True), size=8),
    "max-pool, ceil_mode and border": lambda: behind(nn.MaxPool2d(2, 2, 1, ceil_mode=True)),
    "max-pool, dilation": lambda: behind(nn.MaxPool2d(2, 1, dilation=3)),
    "residual as output": lambda: (
        Net(lambda s, x: x + s.a(x), a=conv(3, 3, 3, padding=1)),
        numbers(*IMAGES),
    ),
    "residual of vectors as output": lambda: (
        Net(lambda s, x: x + s.a(x), a=nn.Linear(7, 7)),
        numbers(6, 7),
    ),
    "residual in linear layers": lambda: (
        Net(lambda s, x: s.b(F.relu(x + s.a(x))), a=nn.Linear(7, 7), b=nn.Linear(7, 3)),
        numbers(6, 7),
    ),
    "residual read under another name": lambda: (flattened_residual(), numbers(*IMAGES)),
    "input as residual": lambda: (
        Net(lambda s, x: s.b(x + s.a(x)) + x, a=conv(3, 3, 1), b=conv(3, 3, 1)),
        numbers(*IMAGES),
    ),
    "padding same, even kernel": lambda: (
        nn.Sequential(conv(3, 4, (2, 4), padding="same"), nn.ReLU(), conv(4, 2, 3)),
        numbers(*IMAGES),
    ),
    "padding same, dilation": lambda: (
        nn.Sequential(conv(3, 4, (3, 4), padding="same", dilation=(2, 1)), nn.ReLU(), conv(4, 2, 1)),
        numbers(*IMAGES),
    ),
    "padding beyond the kernel": lambda: (
        nn.Sequential(conv(3, 6, (2, 1), stride=2, padding=2, groups=3), nn.ReLU(),
                      conv(6, 4, 2, padding=2), nn.ReLU(), conv(4, 2, 1, padding=1)),
        numbers(*IMAGES),
    ),
    "padding valid": lambda: (
        nn.Sequential(conv(3, 4, 3, padding="valid"), nn.ReLU6(), conv(4, 2, 1)),
        numbers(*IMAGES),
    ),
    "groups": lambda: (
        nn.Sequential(conv(4, 8, 3, groups=2), nn.ReLU(), conv(8, 8, 3, groups=8, stride=2)),
        numbers(6, 4, 9, 9),
    ),
    "map as output": lambda: (nn.Sequential(conv(3, 4, 3)), numbers(*IMAGES)),
    "codes as output": lambda: (
        nn.Sequential(conv(3, 4, 3), nn.ReLU(), nn.Flatten(2), nn.Flatten()),
        numbers(*IMAGES),
    ),
    "sum of two": lambda: (
        Net(lambda s, x: F.relu(F.max_pool2d(s.a(x), 2) + F.max_pool2d(s.b(x), 2)),
            a=conv(3, 4, 3), b=conv(3, 4, 3)),
        numbers(*IMAGES),
    ),
    "concatenated rows": lambda: (
        Net(lambda s, x: torch.cat([s.a(x), s.b(x)], -2), a=conv(3, 4, 3), b=conv(3, 4, (1, 3))),
        numbers(*IMAGES),
    ),
    "clamp of its own": lambda: (
        Net(lambda s, x: s.b(F.relu6(a := s.a(x))) + s.b(a), a=conv(3, 4, 3), b=conv(4, 4, 1)),
        numbers(*IMAGES) * 8,
    ),
    "no biases": lambda: (
        nn.Sequential(nn.Linear(7, 9, bias=False), nn.ReLU(), nn.Linear(9, 9, bias=False),
                      nn.SiLU(), nn.Linear(9, 5, bias=False)),
        numbers(6, 7),
    ),
    "tokens": lambda: (
        nn.Sequential(nn.Linear(7, 9), nn.ReLU(), nn.Linear(9, 5)), numbers(6, 4, 7)
    ),
    "tokens with a residual": lambda: (
        Net(lambda s, x: s.b(F.relu(x + s.a(x))) + x, a=nn.Linear(7, 7), b=nn.Linear(7, 7)),
        numbers(6, 4, 7),
    ),
    "channels last": lambda: (
        Net(lambda s, x: s.b(s.a(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2), a=conv(3, 4, 3),
            b=nn.Linear(4, 6)),
        numbers(*IMAGES),
    ),
    "rows normalized": lambda: (
        nn.Sequential(nn.BatchNorm1d(7), nn.Linear(7, 4), nn.ReLU(), nn.BatchNorm1d(4)),
        numbers(6, 7),
    ),
    "signals": lambda: (
        nn.Sequential(nn.Conv1d(3, 6, 3, padding=1), nn.BatchNorm1d(6), nn.ReLU(),
                      nn.MaxPool1d(3, 2, 1, ceil_mode=True), nn.Conv1d(6, 4, 2, groups=2),
                      nn.AvgPool1d(3, 1, 1), nn.Flatten(), nn.Linear(16, 5)),
        numbers(6, 3, 8),
    ),
    "volumes": lambda: (
        nn.Sequential(nn.Conv3d(2, 4, (1, 3, 2), padding=(0, 1, 1)), nn.ReLU(), nn.MaxPool3d(2),
                      nn.Conv3d(4, 3, 1), nn.AvgPool3d((1, 2, 2), divisor_override=3)),
        numbers(4, 2, 4, 6, 6),
    ),
    "transposed signals and volumes": lambda: (
        Net(lambda s, x: s.b(F.relu(s.a(s.c(x))).unflatten(2, (3, 3, 2))),
            c=nn.Conv1d(3, 3, 1), a=nn.ConvTranspose1d(3, 4, 3, 2, output_padding=1),
            b=nn.ConvTranspose3d(4, 2, 2, groups=2)),
        numbers(4, 3, 8),
    ),
    "grouped transposed": lambda: (
        nn.Sequential(nn.ConvTranspose2d(4, 6, 3, 2, 1, groups=2), nn.ReLU(), conv(6, 2, 3)),
        numbers(6, 4, 5, 5),
    ),
    "a reshape that moves nothing behind a concatenation": lambda: (
        Net(lambda s, x: torch.cat([s.a(x), x], 1).reshape(-1, 7), a=nn.Linear(6, 1)),
        numbers(6, 6),
    ),
    "affine": lambda: (
        Net(lambda s, x: s.b(1.5 - s.a(x) / 2) * 3 + 1, a=conv(3, 4, 3), b=conv(4, 2, 1)),
        numbers(*IMAGES),
    ),
    "clamps": lambda: (
        Net(lambda s, x: s.b(F.hardtanh(a := s.a(x), -0.5, 0.7)) + s.b(a.clamp(max=0.3)),
            a=conv(3, 4, 3), b=conv(4, 2, 1)),
        numbers(*IMAGES),
    ),
    "broadcast over pixels": lambda: (
        Net(lambda s, x: s.b(F.relu(s.a(x) + x.mean((2, 3), keepdim=True))), a=conv(3, 3, 3),
            b=conv(3, 2, 1)),
        numbers(*IMAGES),
    ),
    "broadcast of the sums": lambda: (
        Net(lambda s, x: s.a(x.mean((2, 3), keepdim=True)) + x, a=conv(3, 3, 1)),
        numbers(*IMAGES),
    ),
    "added to itself": lambda: (
        Net(lambda s, x: s.b((a := F.relu(s.a(x))) + a), a=conv(3, 3, 3), b=conv(3, 2, 1)),
        numbers(*IMAGES),
    ),
    "slices": lambda: (
        Net(lambda s, x: s.a(x[:, :, 1:-1, ::2])[:, 1:3] + s.b(x)[:, :2, :4, 1:3], a=conv(3, 4, 3),
            b=conv(3, 4, 3)),
        numbers(*IMAGES),
    ),
    "slice of the logits": lambda: (
        Net(lambda s, x: s.a(x)[:, :5], a=nn.Linear(7, 9)), numbers(6, 7)
    ),
    "view by shape": lambda: (
        Net(lambda s, x: s.b(s.a(x).relu().view(x.shape[0], -1)), a=conv(3, 4, 3),
            b=nn.Linear(144, 5)),
        numbers(*IMAGES),
    ),
    "one pixel of each": lambda: (
        Net(lambda s, x: s.b(s.a(x)[:, :, 2, 3].unsqueeze(1).transpose(1, 2).squeeze(2)),
            a=conv(3, 4, 3), b=nn.Linear(4, 5)),
        numbers(*IMAGES),
    ),
    "adaptive max-pool": lambda: behind(nn.AdaptiveMaxPool2d(3)),
    "adaptive max-pool, uneven": lambda: behind(nn.AdaptiveMaxPool2d((4, 2))),
    "dead filter": lambda: (dead_filter(), numbers(*IMAGES)),
    "transposed": lambda: (
        nn.Sequential(nn.ConvTranspose2d(3, 4, 3, 2, 1, 1, dilation=2), nn.ReLU(), conv(4, 2, 3)),
        numbers(*IMAGES),
    ),
}  # fmt: skip


def made(name: str) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    model, x = NETS[name]()
    return model.eval(), x
