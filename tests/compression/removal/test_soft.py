"""Soft filter pruning: the choice is made anew after each epoch, and what faded may come back."""

import pytest
import torch
from torch import nn

from compression.accounting import count_macs
from compression.channels import Choice, choose
from compression.errors import CompressionError
from compression.removal import remove_channels, remove_channels_softly, soft
from compression.training import Recipe
from tests.support.nets import images, residual, split

STILL = Recipe(epochs=2, batch_size=16, learning_rate=1e-12, weight_decay=0.0)
LIVELY = Recipe(epochs=3, batch_size=16, learning_rate=0.1)


def test_without_learning_it_is_removal() -> None:
    net = residual()
    soft_net = remove_channels_softly(net, images(1), split(), STILL, macs=0.6, multiple_of=2)
    hard_net = remove_channels(net, images(1), macs=0.6, multiple_of=2)
    for name, weight in hard_net.named_parameters():
        torch.testing.assert_close(soft_net.get_parameter(name), weight)


def test_the_budget_is_met_and_the_network_has_trained() -> None:
    net = residual()
    made = remove_channels_softly(net, images(1), split(), LIVELY, macs=0.6, multiple_of=2)
    assert count_macs(made, images(1)) <= 0.6 * count_macs(net, images(1))
    assert type(made) is type(net)
    before, after = net.get_parameter("conv1.weight"), made.get_parameter("conv1.weight")
    assert not torch.isin(after, before).any()


def test_filters_fade_after_each_epoch_and_grow_back(monkeypatch: pytest.MonkeyPatch) -> None:
    faded = []

    def watch(choice: Choice, gone: torch.Tensor) -> None:
        weight = choice.model.get_parameter("conv1.weight")
        faded.append(int((weight.flatten(1) == 0).all(dim=1).sum()))
        zero_filters(choice, gone)
        faded.append(int((weight.flatten(1) == 0).all(dim=1).sum()))

    zero_filters = soft.zero_filters
    monkeypatch.setattr(soft, "zero_filters", watch)
    remove_channels_softly(residual(), images(1), split(), LIVELY, macs=0.6, multiple_of=2)
    before, after = faded[::2], faded[1::2]
    assert before == [0, 0, 0]
    assert min(after) > 0


def test_only_filters_are_zeroed() -> None:
    net = residual()
    choice = choose(net, images(1), multiple_of=2)
    cost, total = choice.cost_in_macs()
    gone, _ = choice.select(cost, 0.6 * total)
    before = {name: p.clone() for name, p in net.named_parameters()}
    soft.zero_filters(choice, gone)
    changed = {n for n, p in net.named_parameters() if not torch.equal(p, before[n])}
    assert changed
    assert changed <= {"conv1.weight", "conv2.weight"}


def test_a_budget_out_of_reach_is_said_before_the_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(soft, "train_between", lambda *_, **__: pytest.fail("it trained"))
    with pytest.raises(CompressionError, match=r"macs=0\.001 is out of reach"):
        remove_channels_softly(residual(), images(1), split(), STILL, macs=0.001)
    with pytest.raises(CompressionError, match="macs is a fraction above 0"):
        remove_channels_softly(residual(), images(1), split(), STILL, macs=0.0)


def test_a_network_without_a_choice_is_refused() -> None:
    with pytest.raises(CompressionError, match="no channel of the network can go"):
        remove_channels_softly(nn.Linear(8, 2), torch.randn(1, 8), split(), STILL, macs=0.5)
