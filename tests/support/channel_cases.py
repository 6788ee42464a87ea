"""Cases of channels: networks that can be followed, and those that keep channels and say why."""

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F

from tests.support.channel_nets import (
    IMAGES,
    TOKENS,
    Attention,
    Auxiliary,
    Made,
    Mixer,
    UNet,
    Yolo,
    between,
    eight,
    language,
    maps,
    net,
    normalized,
    read_under_another_name,
    tied,
)
from tests.support.integer_nets import numbers
from tests.support.tricky_nets import conv

FOLLOWED: dict[str, Callable[[], Made]] = {
    "two layers": lambda: between(nn.ReLU()),
    "in place": lambda: between(nn.BatchNorm2d(8), nn.ReLU(inplace=True)),
    "norms without numbers": lambda: between(
        nn.BatchNorm2d(8, affine=False), nn.BatchNorm2d(8, track_running_stats=False),
        nn.InstanceNorm2d(8),
    ),
    "groups": lambda: between(conv(8, 12, 3, groups=2), nn.GroupNorm(6, 12), channels=12),
    "depthwise": lambda: between(
        conv(8, 16, 3, groups=8, padding_mode="reflect", padding=1), nn.PReLU(16), channels=16
    ),
    "transposed": lambda: between(nn.ConvTranspose2d(8, 6, 2, 2, groups=2), channels=6),
    "transposed depthwise": lambda: between(nn.ConvTranspose2d(8, 8, 2, 2, groups=8)),
    "flattened": lambda: (
        nn.Sequential(conv(3, 8, 3), nn.Flatten(), nn.Linear(128, 6), nn.Tanh(), nn.Linear(6, 3)),
        numbers(*IMAGES),
    ),
    "gate": lambda: maps(lambda y: y * y.mean((2, 3), keepdim=True).sigmoid()),
    "shuffle": lambda: maps(
        lambda y: y.view(y.size(0), 2, y.size(1) // 2, -1).transpose(1, 2).reshape(y.shape)
    ),
    "over places": lambda: between(nn.Linear(6, 6), nn.ReLU()),
    "gated": lambda: maps(lambda y: F.glu(y, 1), channels=4),
    "gated layer": lambda: between(nn.GLU(1), channels=4),
    "gated over places": lambda: maps(F.glu),
    "halves": lambda: maps(lambda y: torch.cat([y.chunk(2, 1)[1], y.chunk(2, 1)[0].relu()], 1)),
    "padded shortcut": lambda: maps(lambda y: F.pad(y, (0, 0, 0, 0, 2, 2)), channels=12),
    "border": lambda: maps(lambda y: F.pad(y, (1, 1, 2, 0), mode="reflect")),
    "pixel shuffle": lambda: maps(lambda y: F.pixel_shuffle(y, 2), channels=2),
    "softmax over places": lambda: maps(lambda y: y.flatten(2).softmax(-1).unflatten(2, (6, 6))),
    "norm of places": lambda: maps(lambda y: F.normalize(y, 2.0, -1)),
    "halved": lambda: maps(lambda y: y / 2),
    "zeros": lambda: maps(lambda y: y + torch.zeros_like(y) + torch.ones_like(y)),
    "format of another": lambda: net(
        lambda s, x: s.head((y := s.stem(x)) + s.one.to(y)), stem=conv(3, 8, 1), head=conv(8, 4, 1),
        one=nn.Buffer(torch.ones(1)),
    ),
    "device": lambda: maps(lambda y: y + torch.ones(1, dtype=y.dtype, device=y.device)),
    "maximum along an axis": lambda: maps(lambda y: y.max(2, keepdim=True).values),
    "scale": lambda: net(
        lambda s, x: s.head(s.stem(x) * s.scale * s.one), stem=conv(3, 8, 1), head=conv(8, 4, 1),
        scale=nn.Parameter(torch.rand(8, 1, 1)), one=nn.Buffer(torch.tensor(2.0)),
    ),
    "scale of rows": lambda: net(
        lambda s, x: s.head(s.stem(x) * s.rows), stem=conv(3, 8, 1), head=conv(8, 4, 1),
        rows=nn.Parameter(torch.rand(6)),
    ),
    "place embedding": lambda: net(
        lambda s, x: s.head((s.stem(x) + s.place).mean(1)), *TOKENS, stem=nn.Linear(4, 8),
        head=nn.Linear(8, 3), place=nn.Parameter(torch.rand(1, 5, 8)),
    ),
    "called twice": lambda: net(
        lambda s, x: s.head(s.twice(s.twice(s.stem(x)).relu())), stem=conv(3, 8, 1),
        twice=conv(8, 8, 1), head=conv(8, 4, 1),
    ),
    "of two sizes": lambda: net(
        lambda s, x: (s.head(s.stem(x)), s.head(s.stem(F.max_pool2d(x, 2)))), stem=conv(3, 8, 1),
        head=conv(8, 4, 1),
    ),
    "squeezed by letters": lambda: maps(
        lambda y: y * torch.einsum("bchw,bchw->bc", y, y)[:, :, None, None]
    ),
    "tied": tied,
    "language": language,
    "dictionary": lambda: net(
        lambda s, x: {"out": s.head(y := s.stem(x).relu()), "more": {"aux": s.head(y * 2)}},
        stem=conv(3, 8, 1), head=conv(8, 4, 1),
    ),
    "unread": lambda: net(
        lambda s, x: (s.head(y := s.stem(x)), s.unread(y))[0], stem=conv(3, 8, 1),
        head=conv(8, 4, 1), unread=conv(8, 2, 1),
    ),
    "windows after the channels": lambda: net(
        lambda s, x: s.head(F.avg_pool1d(s.stem(x).transpose(1, 2), 2).transpose(1, 2)), *TOKENS,
        stem=nn.Linear(4, 8), head=nn.Linear(8, 3),
    ),
    "no batch": lambda: (between(nn.MaxPool2d(2))[0], numbers(3, 6, 6)),
    "an empty batch": lambda: (between(nn.ReLU())[0], numbers(0, 3, 6, 6)),
    "1-d": lambda: (
        nn.Sequential(
            nn.Conv1d(2, 8, 3), nn.BatchNorm1d(8), nn.MaxPool1d(2), nn.ConvTranspose1d(8, 6, 2),
            nn.InstanceNorm1d(6, affine=True), nn.Conv1d(6, 3, 1),
        ),
        numbers(2, 2, 9),
    ),
    "3-d": lambda: (
        nn.Sequential(
            nn.Conv3d(2, 8, 3, padding=1), nn.BatchNorm3d(8), nn.MaxPool3d(2),
            nn.ConvTranspose3d(8, 6, 2, 2, groups=2), nn.Upsample(scale_factor=2), nn.Conv3d(6, 3, 1),
        ),
        numbers(1, 2, 4, 4, 4),
    ),
    "detector": lambda: (Yolo(), numbers(1, 3, 16, 16)),
    "segmentation": lambda: (UNet(), numbers(1, 3, 9, 9)),
    "mixer": lambda: (Mixer(), numbers(*TOKENS)),
    "auxiliary": lambda: (Auxiliary(), numbers(*IMAGES)),
    **{
        f"attention, {kind}": lambda kind=kind: (Attention(kind), numbers(*TOKENS))  # type: ignore[misc]
        for kind in ("by hand", "fused", "scaled")
    },
}  # fmt: skip

# Name -> the network, and what is said of its layer "stem" or of the one that stands here.
KEPT: dict[str, tuple[Callable[[], Made], str]] = {
    "one more": (lambda: maps(lambda y: y[:, 1:], channels=7), "sizes are fixed"),
    "the first": (lambda: maps(lambda y: y[:, :6], channels=6), "sizes are fixed"),
    "every other": (
        lambda: net(
            lambda s, x: s.head(s.stem(x)[:, ::2]), stem=conv(3, 3, 1), head=conv(2, 4, 1)
        ),
        "sizes are fixed",
    ),
    "rolled": (lambda: maps(lambda y: y.roll(1, 1)), "sizes are fixed"),
    "told": (lambda: maps(lambda y: y.reshape(-1, 8, 36).unsqueeze(-1)), "sizes are fixed"),
    "split as told": (lambda: maps(lambda y: torch.cat(y.split([3, 5], 1)[::-1], 1)), "sizes are"),
    "counted": (lambda: maps(lambda y: y * y.shape[1]), "the number of its channels is computed"),
    "counted by halves": (
        lambda: net(
            lambda s, x: s.head((y := s.stem(x)) * (6 % (y.shape[1] // 2))), stem=conv(3, 9, 1),
            head=conv(9, 4, 1),
        ),
        "the number of its channels is computed",
    ),
    "named as torch's": (lambda: maps(normalized), "tests.normalize is not known"),
    "asserted": (
        lambda: maps(eight),
        "the number of its channels is computed with",
    ),
    "given out": (
        lambda: net(
            lambda s, x: (s.head(y := s.stem(x)), y.shape[1]), stem=conv(3, 8, 1), head=conv(8, 4, 1)
        ),
        "the number of its channels is computed with at output",
    ),
    "logarithm": (lambda: maps(lambda y: y.abs().log()), "a channel of zeros gives no number"),
    "root": (lambda: maps(lambda y: (y * y + 1) ** -0.5), "a channel of zeros gives no number"),
    "divided by": (lambda: maps(lambda y: 1 / y), "a channel of zeros gives no number"),
    "softmax": (lambda: maps(lambda y: y.softmax(1)), "softmax counts its channels"),
    "normalized": (lambda: maps(lambda y: F.normalize(y, 1.0)), "normalize counts its channels"),
    "one group": (lambda: between(nn.GroupNorm(1, 8)), "GroupNorm's mean and variance"),
    "mean": (lambda: maps(lambda y: y - y.mean(1, keepdim=True)), "mean counts its channels"),
    "variance of all": (lambda: maps(lambda y: y / y.var(False)), "var counts its channels"),
    "windows": (
        lambda: net(
            lambda s, x: s.head(F.max_pool2d(s.stem(x).transpose(1, 2), 3, 1, 1).transpose(1, 2)),
            *TOKENS, stem=nn.Linear(4, 8), head=nn.Linear(8, 3),
        ),
        "windows cross its channels",
    ),
    "windows without a batch": (
        lambda: net(
            lambda s, x: s.head(F.max_pool2d(s.stem(x), 3, 1, 1)), 2, 3, 6, stem=nn.Conv1d(3, 8, 1),
            head=nn.Conv1d(8, 2, 1),
        ),
        "windows cross its channels",
    ),
    "reflected": (
        lambda: net(
            lambda s, x: s.head(F.pad(s.stem(x), (1, 1), mode="replicate")), *TOKENS,
            stem=nn.Linear(4, 8), head=nn.Linear(10, 3),
        ),
        "its border counts channels",
    ),
    "picked": (
        lambda: net(
            lambda s, x: s.head(s.stem(x)[:, s.order]), stem=conv(3, 8, 1), head=conv(8, 4, 1),
            order=nn.Buffer(torch.arange(8)),
        ),
        "getitem is not known",
    ),
    "read whole": (read_under_another_name, "the forward reads one.weight whole"),
    "by function": (
        lambda: net(
            lambda s, x: s.head(F.conv2d(s.stem(x), s.weight)), stem=conv(3, 8, 1), head=conv(4, 4, 1),
            weight=nn.Parameter(torch.rand(4, 8, 1, 1)),
        ),
        "conv2d is not known",
    ),
    "looked up": (
        lambda: net(
            lambda s, x: s.head(s.table(s.stem(x).clamp(0, 4).to(torch.long))), *TOKENS,
            stem=nn.Linear(4, 8), table=nn.Embedding(5, 6), head=nn.Linear(6, 3),
        ),
        "an embedding looks its channels up",
    ),
    "recurrent": (
        lambda: net(
            lambda s, x: s.head(s.mix(s.stem(x))[0]), *TOKENS, stem=nn.Linear(4, 8),
            mix=nn.LSTM(8, 8, batch_first=True), head=nn.Linear(8, 3),
        ),
        "LSTM is not known",
    ),
    "exponentials": (
        lambda: (Attention("exponentials"), numbers(*TOKENS)), "a sum over channels that are not 0"
    ),
    "letters that count channels": (
        lambda: maps(lambda y: y * torch.einsum("bchw,bdhw->bd", y.exp(), y)[..., None, None]),
        "a sum over channels that are not 0",
    ),
    "a diagonal": (
        lambda: maps(lambda y: torch.einsum("bcww,bcww->bc", y, y)[..., None, None] + y),
        "einsum is not known",
    ),
    "attention over channels": (
        lambda: (Attention("over channels"), numbers(*TOKENS)), "attention needs all of its heads"
    ),
}  # fmt: skip
