"""The property of removed channels: a network without them gives what zeros in their place give."""

import random
from typing import Any

import torch
from torch import Tensor, nn

from compression.accounting import count_macs, count_parameters
from compression.channels import Channels, Choice, cut, follow, widths_of, zero
from compression.errors import UnsupportedTypeError
from tests.support.compared import leaves, run, untouched
from tests.support.program import Program
from tests.support.refusals import RefusedError

TOLERANCE = 1e-9
"""Of the largest output in float64."""


def random_gone(channels: Channels, seed: int, share: float = 0.5) -> tuple[Tensor, list[int]]:
    """Return units at random (bool per label), one of each width staying, and how many stay."""
    generator = torch.Generator().manual_seed(seed)
    gone = torch.zeros(len(channels.labels), dtype=torch.bool)
    kept = []
    for width in widths_of(channels):
        goes = torch.rand(len(width.units), generator=generator) < share
        if bool(goes.all()):
            goes[torch.randint(len(goes), (1,), generator=generator)] = False
        gone[width.units[goes]] = True
        kept.append(len(goes) - int(goes.sum()))
    return gone, kept


def check_cut(
    net: nn.Module, example: tuple[Any, ...], others: tuple[Any, ...], seed: int = 0
) -> float:
    """Assert the property of a network in float64, and its costs; return the share that stays."""
    with untouched(net):
        channels = follow(net, example)
        gone, kept = random_gone(channels, seed)
        smaller, zeroed = cut(net, channels, gone), zero(net, channels, gone)
        wanted, found = run(zeroed, others), run(smaller, others)
        assert_alike(found, wanted)
        check_costs(net, smaller, example, channels, kept)
    return count_parameters(smaller) / max(1, count_parameters(net))


def assert_alike(found: list[Tensor], wanted: list[Tensor]) -> None:
    """Assert that outputs agree to rounding, in shape and where they are infinite."""
    assert [t.shape for t in found] == [t.shape for t in wanted]
    for one, other in zip(found, wanted, strict=True):
        assert one.dtype == other.dtype
        torch.testing.assert_close(
            one.double(),
            other.double(),
            rtol=TOLERANCE,
            atol=TOLERANCE * float(other.double().abs().max()) if other.numel() else 0.0,
            equal_nan=False,
        )


def check_costs(
    net: nn.Module,
    smaller: nn.Module,
    example: tuple[Any, ...],
    channels: Channels,
    kept: list[int],
) -> None:
    """Assert that what the widths are said to cost is what the cut network does and holds."""
    widths = widths_of(channels)
    choice = Choice(net, example, channels, widths, torch.zeros(0), [], 0.1)
    cost, total = choice.cost_in_parameters()
    assert total == count_parameters(net)
    assert round(cost.of(kept), 3) == count_parameters(smaller)
    try:
        cost, total = choice.cost_in_macs()
    except UnsupportedTypeError:  # operators whose products torch does not tell
        return
    found = count_macs(smaller, *example)
    followed = [part.macs for part in channels.products] + [part.macs for part in channels.pairs]
    unfollowed = total - sum(followed)
    if unfollowed:  # products of two values, which are told as they are in the whole network
        assert found <= cost.of(kept) + 1e-3
    else:
        assert round(cost.of(kept), 3) == found


def removed(program: Program) -> float:
    """Cut a program's network; RefusedError where torch.fx cannot trace it."""
    net = program.build().double()
    example, others = program.inputs(), program.inputs(seed=2)
    if not program.runs():
        raise RefusedError("the program: it takes a batch of another size only")
    seed = random.Random(program.source).randrange(1000)
    doubles = [tuple(x.double() for x in given) for given in (example, others)]
    try:
        return check_cut(net, doubles[0], doubles[1], seed)
    except UnsupportedTypeError as error:
        raise RefusedError(f"follow: {error}") from error


__all__ = ["assert_alike", "check_costs", "check_cut", "leaves", "random_gone", "removed"]
