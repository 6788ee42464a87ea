"""Operators that static INT8 computes as others."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import compression as c
from compression.graph import trace
from compression.integer import lacking
from compression.quantization.rewriting import rewrite
from tests.support.tricky_nets import conv


class By(nn.Module):
    """Two layers, and what a function makes of them."""

    def __init__(self, forward: Callable[[Any, Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = conv(3, 8, 3, padding=1), conv(3, 8, 3, padding=1)
        self.gate, self.rows = nn.Linear(8, 8), nn.Linear(8, 6, bias=False)
        self.scale, self.shift = (
            nn.Parameter(torch.rand(8, 1, 1)),
            nn.Parameter(torch.rand(8, 1, 1)),
        )
        self.left, self.right = nn.Parameter(torch.randn(6)), nn.Parameter(torch.randn(2))
        self.last, self.how = conv(8, 4, 1), forward

    def forward(self, x: Tensor) -> Tensor:
        return self.how(self, x)


def gate(net: Any, x: Tensor) -> Tensor:
    return torch.sigmoid(net.gate(x.mean((2, 3))))[..., None, None]


NETS: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "a difference": lambda s, x: s.last(s.a(x) - s.b(x)),
    "a method's difference": lambda s, x: s.last(s.a(x).sub(s.b(x))),
    "a difference from a parameter": lambda s, x: s.last(s.shift - s.a(x)),
    "a difference of one value": lambda s, x: s.last((y := s.a(x)) - F.avg_pool2d(y, 3, 1, 1)),
    "a stack": lambda s, x: s.last(torch.stack([s.a(x), s.b(x)], 1).mean(1)),
    "an affine function": lambda s, x: s.last(torch.addcmul(s.shift, s.a(x), s.scale)),
    "a gate that is expanded": lambda s, x: s.last((y := s.a(x)) * gate(s, y).expand_as(y)),
    "a bias made of parts": lambda s, x: F.linear(
        s.a(x).mean((2, 3)), s.gate.weight, torch.cat([s.left, s.right])
    ),
    "weights that are scaled": lambda s, x: F.conv2d(
        F.relu(s.a(x)), s.last.weight * s.scale[:1], s.last.bias, padding=1
    ),
    "weights of two layers": lambda s, x: F.linear(
        s.a(x).mean((2, 3)), s.rows.weight @ s.gate.weight
    ),
}


def images(count: int = 8) -> Tensor:
    return torch.randn(count, 3, 9, 9, generator=torch.Generator().manual_seed(count))


@pytest.mark.parametrize("name", NETS)
@torch.no_grad()
def test_nothing_stays_in_float_and_kernels_agree(name: str) -> None:
    net, x = By(NETS[name]).eval(), images()
    static = c.quantize_static(net, x)
    assert static.shown.sizes is None
    wanted, found = net(x), static(x)
    assert (found - wanted).norm() <= 0.05 * wanted.norm(), "8 bits, three layers"
    if not lacking("onednn"):
        deployed = c.deploy(static, x, executor="onednn")
        assert (deployed(x[:3]) - static(x[:3])).abs().max() <= 0.05, "ties"
    if not lacking("native") and name != "a stack":  # of five axes
        deployed = c.deploy(static, x, executor="native")
        assert torch.equal(deployed(x[:3]), static(x[:3]))


@pytest.mark.parametrize("name", NETS)
@torch.no_grad()
def test_the_other_words_say_the_same(name: str) -> None:
    net, x = By(NETS[name]).eval(), images()
    traced = rewrite(trace(net))
    torch.testing.assert_close(traced(x), net(x), rtol=1e-5, atol=1e-6)


@torch.no_grad()
def test_what_has_a_factor_of_its_own_stays() -> None:
    kept = {
        "alpha": lambda s, x: torch.sub(s.a(x), s.b(x), alpha=2),
        "a number": lambda s, x: s.a(x) - 1.5,
        "expanded for a reader of its own": lambda s, x: gate(s, s.a(x)).expand_as(s.b(x)) + 1.0,
        "an output": lambda s, x: torch.addcmul(s.shift, s.a(x), s.scale, value=0.5),
    }
    for how in kept.values():
        net = By(how).eval()
        before = [node.target for node in trace(net).graph.nodes]
        assert [node.target for node in rewrite(trace(net)).graph.nodes] == before
