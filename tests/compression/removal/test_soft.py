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


def test_channels_fade_after_each_epoch_and_grow_back(monkeypatch: pytest.MonkeyPatch) -> None:
    faded = []

    def watch(choice: Choice, gone: torch.Tensor) -> None:
        scale = choice.model.get_parameter("bn1.weight")
        faded.append(int((scale == 0).sum()))
        zero_channels(choice, gone)
        faded.append(int((scale == 0).sum()))

    zero_channels = soft.zero_channels
    monkeypatch.setattr(soft, "zero_channels", watch)
    remove_channels_softly(residual(), images(1), split(), LIVELY, macs=0.6, multiple_of=2)
    before, after = faded[::2], faded[1::2]
    assert before == [0, 0, 0]
    assert min(after) > 0


def selected(net: nn.Module, example: torch.Tensor) -> tuple[Choice, torch.Tensor]:
    choice = choose(net, example, multiple_of=2)
    cost, total = choice.cost_in_macs()
    return choice, choice.select(cost, 0.6 * total)[0]


def test_norms_are_zeroed_and_filters_stay() -> None:
    net = residual()
    with torch.no_grad():
        for name in ("bn1", "bn2"):
            net.get_parameter(f"{name}.bias").fill_(0.1)
    choice, gone = selected(net, images(1))
    before = {name: p.clone() for name, p in net.named_parameters()}
    soft.zero_channels(choice, gone)
    changed = {n for n, p in net.named_parameters() if not torch.equal(p, before[n])}
    assert changed == {"bn1.weight", "bn1.bias", "bn2.weight", "bn2.bias"}
    assert int((net.get_parameter("bn1.weight") == 0).sum()) == int(gone.sum())


def test_filters_without_a_norm_are_zeroed() -> None:
    net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2))
    choice, gone = selected(net, torch.randn(1, 8))
    soft.zero_channels(choice, gone)
    assert int((net.get_parameter("0.weight") == 0).all(dim=1).sum()) == int(gone.sum()) > 0
    assert (net.get_parameter("2.weight") != 0).all()


def test_what_a_norm_scales_down_is_worth_little() -> None:
    net = residual()
    with torch.no_grad():
        for name in ("bn1", "bn2"):
            net.get_parameter(f"{name}.weight")[3] = 1e-3
    choice, _ = selected(net, images(1))
    scaled = soft.with_norms_in_filters(choice)
    rows = scaled.get_parameter("conv1.weight").flatten(1).norm(dim=1)
    assert int(rows.argmin()) == 3


def test_a_budget_out_of_reach_is_said_before_the_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(soft, "train_between", lambda *_, **__: pytest.fail("it trained"))
    with pytest.raises(CompressionError, match=r"macs=0\.001 is out of reach"):
        remove_channels_softly(residual(), images(1), split(), STILL, macs=0.001)
    with pytest.raises(CompressionError, match="macs is a fraction above 0"):
        remove_channels_softly(residual(), images(1), split(), STILL, macs=0.0)


def test_gradients_are_no_criterion_here() -> None:
    with pytest.raises(CompressionError, match=r'"taylor" looks at gradients .*: take "l1", "l2"'):
        remove_channels_softly(residual(), images(1), split(), STILL, macs=0.5, criterion="taylor")


def test_a_network_without_a_choice_is_refused() -> None:
    with pytest.raises(CompressionError, match="no channel of the network can go"):
        remove_channels_softly(nn.Linear(8, 2), torch.randn(1, 8), split(), STILL, macs=0.5)
