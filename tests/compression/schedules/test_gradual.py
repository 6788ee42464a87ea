"""Gradual pruning: the fraction of zeros at each step, and where it is another technique."""

from typing import Any

import pytest
import torch
from torch import nn

from compression.pruning import fine_tune, prune_l1_global, prune_l1_unstructured, sparsity
from compression.schedules import prune_gradually
from compression.schedules.gradual import cubic_share, remover
from compression.training import Recipe, Split, fit
from compression.weights import weights
from tests.support.compared import fingerprint
from tests.support.nets import RECIPE, mlp, residual, split


def shares_after(steps: int, *, every: int, last: int, amount: float, first: float) -> list[float]:
    """Return the zeros' fraction after each step, where each one moves all weights."""
    net = prune_l1_unstructured(mlp(), amount=first)
    after_step = remover(net, weights(net), amount=amount, every=every, last=last, scope="global")
    found = []
    for _ in range(steps):
        with torch.no_grad():
            for parameter in net.parameters():
                parameter.add_(0.01)
        after_step()
        found.append(sparsity(net))
    return found


@pytest.mark.parametrize("first", [0.0, 0.5])
def test_zeros_follow_the_cubic_and_stay(first: float) -> None:
    count, wanted, now = 16 * 192 + 4 * 16, [], first
    for step in range(1, 13):
        if step in (3, 6, 8):  # every third, and the last one at 8
            now = round((0.9 + (first - 0.9) * (1 - step / 8) ** 3) * count) / count
        wanted.append(now)
    assert shares_after(12, every=3, last=8, amount=0.9, first=first) == pytest.approx(wanted)


def test_the_cubic_starts_steep_and_ends_at_the_amount_exactly() -> None:
    assert cubic_share(0.0, 0.95, 0.0) == 0.0
    assert cubic_share(0.0, 0.8, 0.5) == pytest.approx(0.7)
    assert cubic_share(0.1, 0.95, 1.0) == 0.95


def test_more_zeros_than_asked_are_kept() -> None:
    assert set(shares_after(8, every=2, last=6, amount=0.3, first=0.5)) == {0.5}


@pytest.mark.parametrize(("until", "scope"), [(0.1, "global"), (0.6, "layer"), (1.0, "global")])
def test_the_amount_is_reached_whenever_it_ends(until: float, scope: str) -> None:
    net = prune_gradually(
        residual(), split(), RECIPE, amount=0.75, every=3, until=until, scope=scope
    )
    assert sparsity(net) == 0.75
    each = {int((w.tensor == 0).sum()) / w.tensor.numel() for w in weights(net)}
    assert (each == {0.75}) == (scope == "layer")


def test_an_amount_of_none_is_fine_tuning_bit_for_bit() -> None:
    net = prune_l1_unstructured(residual(), amount=0.5)
    found = prune_gradually(net, split(), RECIPE, amount=0, every=1)
    assert fingerprint(found) == fingerprint(fine_tune(net, split(), RECIPE))


def test_all_at_once_is_pruning_then_fine_tuning_bit_for_bit() -> None:
    found = prune_gradually(residual(), split(), RECIPE, amount=0.6, until=0)
    wanted = fine_tune(prune_l1_global(residual(), amount=0.6), split(), RECIPE)
    assert fingerprint(found) == fingerprint(wanted)


def test_no_step_is_taken_beyond_the_recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    trained = []

    def watched(model: nn.Module, train: Split, recipe: Recipe, **options: Any) -> None:
        trained.append(recipe)
        fit(model, train, recipe, **options)

    monkeypatch.setattr("compression.schedules.gradual.fit", watched)
    prune_gradually(residual(), split(), RECIPE, amount=0.6)
    assert trained == [RECIPE]
