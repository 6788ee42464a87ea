"""Networks that return tensors in structures: name -> network, inputs."""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.support.functional import Net
from tests.support.integer_nets import numbers


class Pair(NamedTuple):
    first: Any
    second: Any


@dataclass
class Found:
    logits: Any
    boxes: Any


def _halves(s: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    a, b = F.relu(s.c(x)).chunk(2, 1)
    return a, b


BI = "bilinear"
STRUCTURES: dict[str, Callable[[Any, Tensor], Any]] = {
    "tuple": lambda s, x: (s.b(s.a(x)), s.c(x)),
    "list, and a layer's input": lambda s, x: [s.b(y := F.relu(s.a(x))), y],
    "nested dictionaries": lambda s, x: {"out": s.b(y := s.a(x)), "aux": [y, {"x": x}]},
    "ordered dictionary": lambda s, x: OrderedDict(out=s.b(y := F.relu6(s.a(x))), aux=y),
    "named tuple": lambda s, x: Pair(s.b(s.a(x)), Pair(s.c(x), None)),
    "dataclass": lambda s, x: (OrderedDict(a=Found(s.b(x), x)), 3, "three"),
    "one tensor in a dictionary": lambda s, x: {"out": s.a(x)},
    "one value in two places": lambda s, x: (y := s.a(x), s.drop(y), {"again": y}),
    "real numbers in two places": lambda s, x: (y := s.a(x), [y]),
    "a sum and what it adds": lambda s, x: (y := s.a(x), F.relu(y + x), x),
    "a clamp and what it clamps": lambda s, x: (y := s.a(x), y.relu(), y.clamp(-0.5, 0.7)),
    "flattened, sliced and moved": lambda s, x: (
        s.a(x).flatten(1), s.a(x)[:, 1:, ::2], s.b(x).permute(0, 2, 3, 1), s.l(x.mean((2, 3))),
    ),
    "parts": _halves,
    "a norm behind an output": lambda s, x: (y := s.a(x), s.n(y), s.c(y)),
    "a sum of last layers": lambda s, x: (s.b(x) + s.drop(s.b(F.relu(x))), s.a(x)),
    "a sum of rows": lambda s, x: s.l(x.mean((2, 3))) + s.l(s.a(x).mean((2, 3))),
    "a sum of tokens": lambda s, x: s.l(t := x.flatten(2).transpose(1, 2)) + s.l(F.relu(t)),
    "a sum of a map and a pixel": lambda s, x: s.b(x) + s.b(x.mean((2, 3), keepdim=True)),
    "scores made larger": lambda s, x: {
        "out": F.interpolate(s.b(y := s.a(x)), size=(13, 9), mode="bilinear", align_corners=True),
        "aux": F.interpolate(s.a(y), scale_factor=(1.7, 2), mode="bilinear"),
    },
    "scores of two sizes": lambda s, x: F.interpolate(
        (y := s.b(F.relu(s.a(x)))) + F.interpolate(s.b(F.avg_pool2d(x, 2)), y.shape[2:], None, BI),
        scale_factor=2, mode=BI,
    ),
    "scores, and themselves made larger": lambda s, x: (
        y := s.b(x), F.interpolate(y, scale_factor=2, mode="bilinear"),
    ),
    "names of the file": lambda s, x: {"input": s.a(x), "Conv_4": s.b(x), "input_": s.c(x)},
}  # fmt: skip
"""Forwards of networks with the layers of `made`."""


def made(name: str) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    net = Net(
        STRUCTURES[name], a=nn.Conv2d(3, 3, 3, padding=1), b=nn.Conv2d(3, 4, 1),
        c=nn.Conv2d(3, 6, 3, 2), l=nn.Linear(3, 7), n=nn.BatchNorm2d(3), drop=nn.Dropout(),
    )  # fmt: skip
    net.n.running_mean.uniform_(-1, 1)  # type: ignore[union-attr,operator]
    return net.eval(), numbers(5, 3, 6, 5)
