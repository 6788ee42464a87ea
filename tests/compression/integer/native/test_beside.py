"""Concatenations whose parts lie where they belong: no step, and bit for bit the reference."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from compression.integer import code_differences, lacking, lower_native
from compression.integer.native.step import KINDS
from compression.quantization import quantize_static, sharing
from tests.support.integer_nets import numbers

pytestmark = pytest.mark.skipif(lacking("native") is not None, reason=str(lacking("native")))
Forward = Callable[["Parts", Tensor], Tensor]


class Parts(nn.Module):
    """Layers that a forward puts together."""

    def __init__(self, forward: Forward) -> None:
        super().__init__()
        self.a, self.b, self.c = (nn.Conv2d(3, n, 3, padding=1) for n in (5, 16, 70))
        self.pool = nn.MaxPool2d(3, 1, 1)
        self.norms = nn.ModuleList(nn.BatchNorm2d(n) for n in (5, 21, 91))
        self.dense = nn.ModuleList(nn.Conv2d(i, o, 1) for i, o in ((5, 16), (21, 70), (91, 4)))
        self.wide = nn.Conv2d(21, 6, 3, padding=1)
        self.how = forward

    def forward(self, x: Tensor) -> Tensor:
        return self.how(self, x)


def dense(net: Parts, x: Tensor) -> Tensor:
    """A dense block: each norm reads the first of the block's channels."""
    parts = [torch.relu(net.a(x))]
    for norm, layer in zip(net.norms, net.dense, strict=True):
        parts.append(layer(torch.relu(norm(torch.cat(parts, 1)))))
    return torch.cat(parts, 1).mean((2, 3))


def branches(net: Parts, x: Tensor) -> Tensor:
    parts = [torch.relu(net.a(x)), net.pool(torch.relu(net.b(x))), net.c(x)]
    return net.norms[2](torch.cat(parts, 1)).flatten(1)


def bordered(net: Parts, x: Tensor) -> Tensor:
    """What reads the concatenation needs a border around it."""
    return net.wide(torch.cat([torch.relu(net.a(x)), torch.relu(net.b(x))], 1)).flatten(1)


def skipped(net: Parts, x: Tensor) -> Tensor:
    """A part that another layer reads, too, is copied."""
    a = torch.relu(net.a(x))
    return torch.cat([net.wide(torch.cat([a, net.b(x)], 1)), a], 1).mean((2, 3))


def twice(net: Parts, x: Tensor) -> Tensor:
    a = torch.relu(net.a(x))
    return torch.cat([a, a, net.b(x)], 1).mean((2, 3))


def crossed(net: Parts, x: Tensor) -> Tensor:
    """Two concatenations of the same parts, neither of which begins the other."""
    a, b = torch.relu(net.a(x)), torch.relu(net.b(x))
    return net.wide(torch.cat([a, b], 1)).mean((2, 3)) + net.wide(torch.cat([b, a], 1)).mean((2, 3))


def in_rows(net: Parts, x: Tensor) -> Tensor:
    """Not of channels."""
    return torch.cat([torch.relu(net.a(x)), torch.relu(net.a(-x))], 2).mean((2, 3))


def begun_twice(net: Parts, x: Tensor) -> Tensor:
    """The first parts alone, read by a layer that is no filter of each channel."""
    a, b = torch.relu(net.a(x)), torch.relu(net.b(x))
    first = net.wide(torch.cat([a, b], 1)).mean((2, 3))
    return torch.cat([first, torch.cat([a, b, net.c(x)], 1).mean((2, 3))], 1)


@pytest.mark.parametrize(
    ("forward", "copies"),
    [
        (dense, 0), (branches, 0), (bordered, 0), (skipped, 2), (twice, 3), (crossed, 2),
        (in_rows, 2), (begun_twice, 2),
    ],
)  # fmt: skip
def test_parts_are_written_where_they_belong(
    forward: Forward, copies: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sharing, "CLOSE", math.inf)  # drawn weights: ranges far apart
    torch.manual_seed(0)
    model, x = Parts(forward).eval(), numbers(5, 3, 6, 7)
    reference = quantize_static(model, x)
    with torch.inference_mode():
        wanted = reference(x)
        integer = lower_native(reference, x[:2])
        assert torch.equal(integer(x), wanted)
        assert torch.equal(integer(x), wanted), "nothing is left of another prediction"
    kept = lower_native(reference, x, keep=True)
    assert set(code_differences(reference, kept, x).values()) == {(0, 0.0)}
    maps = [step for step in integer._steps if KINDS[step.kind] == "MAP"]
    assert len([step for step in maps if not step.real and not step.residual]) == copies
