from copy import deepcopy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from compression.errors import CompressionError
from compression.pruning import (
    fine_tune,
    keep_zeros,
    l1_mask,
    ln_filter_mask,
    prune_l1_global,
    prune_l1_unstructured,
    prune_ln_structured,
    prune_random_unstructured,
    random_mask,
    sparsity,
)
from compression.training import fit
from tests.support.nets import RECIPE, mlp, residual, split
from tests.support.strategies import tensors

AMOUNTS = st.floats(0, 0.99)
UNSTRUCTURED = [prune_l1_unstructured, prune_l1_global, prune_random_unstructured]


@given(tensors(min_dims=1), AMOUNTS)
def test_exactly_the_smallest_are_removed(weight: Tensor, amount: float) -> None:
    keep = l1_mask(weight, amount=amount)
    assert int((~keep).sum()) == round(amount * weight.numel())
    if keep.any() and not keep.all():
        assert weight[keep].abs().min() >= weight[~keep].abs().max()


def test_ties_are_removed_by_index() -> None:
    assert l1_mask(torch.ones(4), amount=0.5).tolist() == [False, False, True, True]


@given(tensors(min_dims=1), AMOUNTS, st.integers(0, 5))
def test_the_random_control_removes_as_many_and_is_seeded(
    w: Tensor, amount: float, seed: int
) -> None:
    masks = [
        random_mask(w, amount=amount, generator=torch.Generator().manual_seed(seed)) for _ in "12"
    ]
    assert torch.equal(*masks)
    assert int((~masks[0]).sum()) == round(amount * w.numel())


def test_filters_of_smallest_norm_are_removed_whole() -> None:
    weight = torch.tensor([3.0, 1.0, 2.0, 4.0]).view(4, 1, 1, 1).expand(4, 2, 3, 3)
    keep = ln_filter_mask(weight, amount=0.5)
    assert keep[:, 0, 0, 0].tolist() == [True, False, False, True]
    assert keep.shape == weight.shape
    with pytest.raises(CompressionError, match="dim"):
        ln_filter_mask(weight, amount=0.5, dim=4)


@pytest.mark.parametrize("prune", UNSTRUCTURED)
@pytest.mark.parametrize("amount", [0.0, 0.5, 0.6])
def test_sparsity_is_exact_and_pruning_twice_adds_nothing(prune, amount: float) -> None:
    once = prune(mlp(), amount=amount)
    assert sparsity(once) == pytest.approx(amount, abs=1 / 64)
    twice = prune(once, amount=amount)
    for a, b in zip(once.parameters(), twice.parameters(), strict=True):
        assert torch.equal(a, b)
    assert not [n for n in once.state_dict() if n.endswith(("_orig", "_mask"))]


def test_structured_pruning_keeps_linear_layers() -> None:
    model = residual()
    pruned = prune_ln_structured(model, amount=0.5)
    filters = pruned.get_parameter("conv1.weight").abs().sum(dim=(1, 2, 3))
    assert int((filters == 0).sum()) == 4
    assert torch.equal(pruned.get_parameter("fc.weight"), model.get_parameter("fc.weight"))
    with pytest.raises(CompressionError, match="convolution"):
        prune_ln_structured(mlp(), amount=0.5)


@pytest.mark.parametrize("amount", [float("nan"), -0.1, 1, 1.0, 1.5, True, "half"])
@pytest.mark.parametrize("prune", [*UNSTRUCTURED, prune_ln_structured])
def test_an_amount_that_is_no_fraction_is_refused(prune, amount) -> None:
    with pytest.raises(CompressionError, match="amount is the fraction"):
        prune(residual(), amount=amount)


def test_a_layer_is_never_emptied() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(50, 50))
    with torch.no_grad():
        model[0].weight.mul_(1e-6)  # type: ignore[operator,union-attr]
    with pytest.raises(CompressionError, match=r"0: every weight"):
        prune_l1_global(model, amount=0.5)


def test_a_model_without_layers_is_refused() -> None:
    with pytest.raises(CompressionError, match="no compressible layer"):
        prune_l1_unstructured(nn.Sequential(nn.ReLU()), amount=0.5)


def test_momentum_revives_no_zero_at_any_step() -> None:
    model = prune_l1_unstructured(residual(), amount=0.6)
    before, again, found = sparsity(model), keep_zeros(model), []

    def after_step() -> None:
        again()
        found.append(sparsity(model))

    fit(model, split(), RECIPE, after_step=after_step)
    assert len(found) == RECIPE.epochs * 4
    assert set(found) == {before}


def test_fine_tuning_trains_a_copy() -> None:
    model = prune_l1_unstructured(residual(), amount=0.6)
    before = {name: t.clone() for name, t in model.state_dict().items()}
    tuned = fine_tune(model, split(), RECIPE)
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())
    assert not torch.equal(tuned.get_parameter("fc.weight"), model.get_parameter("fc.weight"))
    assert sparsity(tuned) == sparsity(model)


def test_fine_tuning_goes_on_where_it_ended() -> None:
    model, states = prune_l1_unstructured(residual(), amount=0.6), []
    whole = fine_tune(model, split(), RECIPE, on_epoch=lambda e: states.append(deepcopy(e.state())))
    assert len(states) == RECIPE.epochs
    resumed = fine_tune(model, split(), RECIPE, resume_from=states[0])
    found = resumed.state_dict()
    assert all(torch.equal(t, found[n]) for n, t in whole.state_dict().items())
