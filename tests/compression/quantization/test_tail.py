"""What outputs alone read of last layers stays real, and nothing else does."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compression.nested import tensors_in
from compression.quantization import modules as q
from compression.quantization import quantize_aware, quantize_static
from compression.training import Recipe, Split
from tests.support.compared import decibels
from tests.support.functional import Net
from tests.support.integer_nets import numbers
from tests.support.planned import quantize_planned
from tests.support.structured_nets import made

BETTER_DB = {"scores of two sizes": 3, "scores made larger": 0.5, "a sum of last layers": 2}
"""Network: how much nearer its outputs are, at least; of rounded sums that are rounded again most."""


def larger(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="bilinear")


CASES: dict[str, tuple[Callable[[Any, Tensor], Any], int]] = {
    "a layer": (lambda s, x: s.a(x), 0),
    "a sum of layers": (lambda s, x: s.a(x) + s.b(x), 1),
    "a sum by its method": (lambda s, x: s.a(x).add(s.b(x)), 1),
    "a sum of three": (lambda s, x: s.a(x) + s.b(x) + s.a(x), 2),
    "a layer made larger": (lambda s, x: larger(s.a(x)), 1),
    "by a layer": (lambda s, x: s.up(s.a(x)), 1),
    "twice": (lambda s, x: larger(larger(s.a(x))), 2),
    "a dropout between": (lambda s, x: larger(s.drop(s.a(x))), 1),
    "and as it is": (lambda s, x: (y := s.a(x), larger(y)), 1),
    "in a dictionary": (lambda s, x: {"out": larger(s.a(x) + s.b(x)), "aux": [larger(s.b(x))]}, 3),
    "an input made larger": (lambda s, x: larger(s.drop(x)), 0),
    "codes made larger": (lambda s, x: larger(F.relu(s.a(x))), 0),
    "a sum with codes": (lambda s, x: s.a(x) + x, 0),
    "a sum with a sum of codes": (lambda s, x: larger(s.a(x) + (s.b(x) + x)), 0),
    "a clamp behind it": (lambda s, x: F.relu(s.a(x) + s.b(x)), 0),
    "a layer behind it": (lambda s, x: s.b(larger(s.a(x))), 0),
    "a layer behind one of them": (lambda s, x: ((y := s.a(x)) + s.b(x), s.b(y)), 0),
    "a layer behind one of two": (lambda s, x: (larger(y := s.a(x)), larger(s.b(y))), 1),
    "a sum with a parameter": (lambda s, x: s.a(x) + s.p, 0),
    "repeated": (lambda s, x: F.interpolate(s.a(x), scale_factor=2), 0),
}
"""A forward, and how many sums and interpolations of it stay real."""


class Layers(Net):
    """A forward of two layers, a parameter, a dropout and an upsampling."""

    def __init__(self, forward: Callable[[Any, Tensor], Any]) -> None:
        super().__init__(
            forward, a=nn.Conv2d(3, 3, 3, padding=1), b=nn.Conv2d(3, 3, 1), drop=nn.Dropout(),
            up=nn.Upsample(scale_factor=2, mode="bilinear"),
        )  # fmt: skip
        self.p = nn.Parameter(numbers(1, 3, 1, 1))


@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_what_stays_real(name: str) -> None:
    forward, expected = CASES[name]
    torch.manual_seed(0)
    net, x = Layers(forward).eval(), numbers(6, 3, 6, 5)
    small = quantize_static(net, x)
    assert sum(isinstance(m, q.REAL) for m in small.modules()) == expected
    assert small.shown.tail is bool(expected)
    found, right = list(tensors_in(small(x))), list(tensors_in(net(x)))
    assert all(decibels(r, f) > 30 for r, f in zip(right, found, strict=True))
    again = small(x[:2])  # an image at a time: torch interpolates each by itself
    assert all(f[:2].equal(a) for f, a in zip(found, tensors_in(again), strict=True))


@pytest.mark.parametrize("name", BETTER_DB)
@torch.no_grad()
def test_it_is_nearer_than_codes(name: str) -> None:
    net, x = made(name)
    right = next(tensors_in(net(x)))
    fine, coarse = (
        next(tensors_in(quantize_planned(net, x, tail=tail)(x))) for tail in (True, False)
    )
    assert decibels(right, fine) - decibels(right, coarse) > BETTER_DB[name]


def test_trained_with_rounding_it_stays_real() -> None:
    net, x = made("scores of two sizes")
    train = Split(x, torch.zeros(len(x), dtype=torch.long), prepare=lambda x: x)
    recipe = Recipe(epochs=1, batch_size=5, learning_rate=0.01)
    small = quantize_aware(net, train, recipe, x, loss=lambda out, *_: out.square().mean())
    assert sum(isinstance(m, q.REAL) for m in small.modules()) == 3
    assert small(x).square().mean() < quantize_static(net, x)(x).square().mean()
