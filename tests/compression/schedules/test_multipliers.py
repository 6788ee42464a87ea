"""The method of multipliers, against numbers worked out by hand."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from compression.schedules.multipliers import Multipliers
from compression.training import fit
from tests.support.nets import RECIPE, mlp, split

GOAL = torch.tensor([1.0, 0.6], dtype=torch.float64)


def largest_of_two(values: Sequence[Tensor]) -> list[Tensor]:
    return [torch.where(v.abs() == v.abs().max(), v, 0) for v in values]


def coupled(weight: Tensor, *, mu: float = 1.0, most: float = 100.0) -> Multipliers:
    return Multipliers([weight], largest_of_two, mu=mu, growth=2.0, most=most)


def minimize(weight: Tensor, multipliers: Multipliers) -> None:
    """Set the weight to where |w - GOAL|^2 / 2 + penalty is least: one Newton step."""
    loss = (weight - GOAL).square().sum() / 2 + multipliers.penalty()
    (gradient,) = torch.autograd.grad(loss, weight)
    with torch.no_grad():
        weight -= gradient / (1 + multipliers.mu)


def test_two_steps_on_a_quadratic_by_hand() -> None:
    weight = GOAL.clone().requires_grad_()
    state = coupled(weight)
    assert state.theta[0].tolist() == [1.0, 0.0]
    minimize(weight, state)  # (0.6 + 1 * 0) / 2
    assert weight.tolist() == pytest.approx([1.0, 0.3])
    state.advance()
    assert state.theta[0].tolist() == pytest.approx([1.0, 0.0])
    assert state.lambdas[0].tolist() == pytest.approx([0.0, -0.3])
    assert state.mu == 2
    # mu / 2 * (0.3 - 0 + 0.3 / 2)^2
    assert state.penalty().item() == pytest.approx(0.45**2)
    minimize(weight, state)  # (0.6 + 2 * (0 - 0.15)) / 3
    assert weight.tolist() == pytest.approx([1.0, 0.1])
    state.advance()  # of (1, 0.1 + 0.3 / 2)
    assert state.theta[0].tolist() == pytest.approx([1.0, 0.0])
    assert state.lambdas[0].tolist() == pytest.approx([0.0, -0.5])
    state.settle()
    assert weight.tolist() == pytest.approx([1.0, 0.0])


def test_multipliers_go_to_the_losss_gradient_where_it_ends() -> None:
    weight = GOAL.clone().requires_grad_()
    state = coupled(weight)
    for _ in range(12):
        minimize(weight, state)
        state.advance()
    assert state.lambdas[0].tolist() == pytest.approx([0.0, -0.6], abs=1e-6)
    assert weight.tolist() == pytest.approx([1.0, 0.0], abs=1e-6)


def test_mu_stops_at_its_most() -> None:
    state = coupled(GOAL.clone().requires_grad_(), mu=1.0, most=3.0)
    grown = []
    for _ in range(3):
        state.advance()
        grown.append(state.mu)
    assert grown == [2.0, 3.0, 3.0]
    assert coupled(GOAL.clone(), mu=9.0, most=3.0).mu == 3


def test_a_frozen_weight_has_no_multiplier() -> None:
    state = coupled(GOAL.clone())
    state.advance()
    assert state.lambdas[0].tolist() == [0.0, 0.0]


def test_numbers_of_16_bits_are_coupled_in_32() -> None:
    weight = torch.tensor([1.0, 0.5], dtype=torch.bfloat16, requires_grad=True)
    state = coupled(weight, mu=1e-4)
    state.advance()
    assert state.lambdas[0].dtype == torch.float32
    assert state.lambdas[0].tolist() == pytest.approx([0.0, -0.5e-4])
    assert state.penalty().dtype == torch.float32
    state.settle()
    assert weight.dtype == torch.bfloat16


def test_a_penalty_of_the_loop_is_a_term_of_the_loss() -> None:
    """Half the squares of the matrices is the recipe's weight decay, which the optimizer applies."""
    recipe = replace(RECIPE, momentum=0.0)
    decayed, penalized = mlp(), mlp()
    matrices = [p for p in penalized.parameters() if p.ndim > 1]
    fit(decayed, split(), replace(recipe, weight_decay=0.1))
    fit(
        penalized,
        split(),
        replace(recipe, weight_decay=0.0),
        penalty=lambda: 0.05 * torch.stack([m.square().sum() for m in matrices]).sum(),
    )
    for found, wanted in zip(penalized.parameters(), decayed.parameters(), strict=True):
        assert torch.allclose(found, wanted, rtol=1e-4, atol=1e-6)
    assert isinstance(penalized, nn.Sequential)
