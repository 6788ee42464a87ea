"""Budgets in milliseconds, where time is a known function of the network."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from compression.accounting import count_macs
from compression.channels import choose
from compression.errors import CompressionError
from compression.removal import latency, remove_channels
from tests.support.channel_cases import FOLLOWED
from tests.support.nets import images, residual


class Timed(nn.Module):
    """A network, and how long it is said to take."""

    def __init__(self, network: nn.Module, example: Any) -> None:
        super().__init__()
        inputs = example if isinstance(example, tuple) else (example,)
        self.network, self.ms = network, count_macs(network, *inputs) / 1e4

    def forward(self, *inputs: Tensor) -> Any:
        return self.network(*inputs)


@pytest.fixture(autouse=True)
def told_time(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Let a network take what it says; return what was asked."""
    asked: list[float] = []

    def told(network: Any, example: tuple[Any, ...]) -> float:
        asked.append(network.ms)
        return float(network.ms)

    monkeypatch.setattr(latency, "time_ms", told)
    return asked


def removed(ms: float, **options: Any) -> nn.Module:
    options = {"deployed": Timed, "multiple_of": 1} | options
    return remove_channels(residual(), images(2), latency_ms=ms, **options)


@pytest.mark.parametrize("share", [0.8, 0.5, 0.35])
def test_the_widest_network_within_the_budget_is_found(share: float) -> None:
    whole = count_macs(residual(), images(2)) / 1e4
    found = count_macs(removed(share * whole), images(2)) / 1e4
    assert 0.7 * share * whole <= found <= share * whole


def test_a_network_that_is_fast_enough_is_whole(told_time: list[float]) -> None:
    model = removed(1e6)
    assert torch.equal(model(images()), residual()(images()))
    assert len(told_time) == 1


def test_a_layer_is_timed_once_for_each_width(told_time: list[float]) -> None:
    removed(0.5 * count_macs(residual(), images(2)) / 1e4)
    layers = told_time[1:]
    # At most three widths of outputs by three of inputs for three layers, and the tries.
    assert len(layers) <= 3 + 9 + 3 + latency.TRIES


LAYERS = ("groups", "depthwise", "transposed", "transposed depthwise", "3-d", "over places")


@pytest.mark.parametrize("name", LAYERS)
def test_the_table_tells_any_time_that_grows_with_inputs_and_outputs(name: str) -> None:
    model, x = FOLLOWED[name]()
    choice = choose(model.eval(), x, multiple_of=1)
    table, (macs, total) = latency.table_cost(choice, Timed), choice.cost_in_macs()
    for share in (1.0, 0.5, 0.75):
        kept = [round(share * len(width.units)) for width in choice.widths]
        wanted = (macs.of(kept) - macs.constant) / 1e4
        assert table.of(kept) == pytest.approx(wanted, rel=1e-9), f"{share} of {total}"


def test_a_time_out_of_reach_is_refused_with_the_fastest() -> None:
    with pytest.raises(
        CompressionError, match=r"latency_ms=0.001 is out of reach: .* the fastest of 6"
    ):
        removed(0.001)


def test_a_network_that_cannot_be_deployed_is_refused_with_the_remedy() -> None:
    def refuses(network: nn.Module, example: Any) -> nn.Module:
        raise CompressionError("no kernel")

    with pytest.raises(
        CompressionError, match=r"cannot be \(no kernel\); pass what is to be timed, as"
    ):
        removed(1.0, deployed=refuses)


@pytest.mark.parametrize("budget", [True, "fast", -1.0, float("nan")])
def test_no_time_is_refused(budget: Any) -> None:
    with pytest.raises(CompressionError, match="latency_ms must be above 0, found"):
        removed(budget)
