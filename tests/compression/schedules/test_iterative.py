"""Iterative pruning: the rounds' amounts and recipes, and one round is a known technique."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from compression.errors import CompressionError
from compression.pruning import fine_tune, prune_l1_global, prune_l1_unstructured, sparsity
from compression.schedules import prune_iteratively
from compression.schedules.iterative import round_recipes, round_shares
from compression.training import Recipe, fit
from tests.support.compared import fingerprint
from tests.support.nets import RECIPE, residual, split


def test_a_round_removes_the_same_fraction_of_what_is_left() -> None:
    assert round_shares(0.0, 0.875, 3) == pytest.approx([0.5, 0.75, 0.875])
    assert round_shares(0.5, 0.875, 2) == pytest.approx([0.75, 0.875])
    assert round_shares(0.0, 0.97, 7)[-1] == 0.97
    assert round_shares(0.8, 0.5, 2) == [0.5, 0.5], "and all of its zeros stay"


def test_the_rounds_share_the_epochs_and_draw_anew() -> None:
    recipe = Recipe(epochs=8, batch_size=4, learning_rate=0.1, coarse_sizes=(4, 5, 6), seed=3)
    parts = list(round_recipes(recipe, 3))
    assert [part.epochs for part in parts] == [2, 3, 3]
    assert [part.coarse_sizes for part in parts] == [(4, 5), (6,), ()]
    assert len({part.seed for part in parts}) == 3
    assert parts[0] == replace(recipe, epochs=2, coarse_sizes=(4, 5))


def test_zeros_of_each_round_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[float] = []
    zeros: list[torch.Tensor] = []

    def watched(model, train, recipe, *, after_step, **options) -> None:
        def after() -> None:
            after_step()
            found.append(sparsity(model))
            zeros.append(model.get_parameter("conv2.weight").detach() == 0)

        fit(model, train, recipe, after_step=after, **options)

    monkeypatch.setattr("compression.schedules.iterative.fit", watched)
    prune_iteratively(residual(), split(), RECIPE, amount=0.75, rounds=2)
    assert found == [0.5] * 4 + [0.75] * 4
    assert all(bool(later[earlier].all()) for earlier, later in pairwise(zeros))


def test_one_round_is_pruning_then_fine_tuning_bit_for_bit() -> None:
    found = prune_iteratively(residual(), split(), RECIPE, amount=0.6, rounds=1)
    wanted = fine_tune(prune_l1_global(residual(), amount=0.6), split(), RECIPE)
    assert fingerprint(found) == fingerprint(wanted)
    pruned = prune_l1_unstructured(residual(), amount=0.5)
    none = prune_iteratively(pruned, split(), RECIPE, amount=0, rounds=1)
    assert fingerprint(none) == fingerprint(fine_tune(pruned, split(), RECIPE))


@pytest.mark.parametrize("rounds", [0, 3, True, 1.5])
def test_rounds_that_the_recipe_has_no_epochs_for_are_refused(rounds: int) -> None:
    with pytest.raises(CompressionError, match=r"rounds must be .*(found|lower it)"):
        prune_iteratively(residual(), split(), RECIPE, amount=0.6, rounds=rounds)
