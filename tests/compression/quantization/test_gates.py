"""The gates' sigmoid and tanh beside those of float64."""

import pytest
import torch
from torch import Tensor

from compression.quantization.gates import MOST, sigmoid, tanh

ULPS = {"sigmoid": 4.0, "tanh": 4.0}
"""Units in the last place: one each of the exponential, the sum and the division, or so."""


def numbers() -> Tensor:
    """Return numbers of every size and both signs, and those where a formula ends."""
    sizes = torch.logspace(-40, 38, 4001, base=10, dtype=torch.float64).float()
    around = torch.linspace(-30, 30, 20001)
    edges = torch.tensor([0.0, 0.625, MOST, MOST / 2, 88.0, torch.finfo(torch.float32).max])
    edges = torch.cat([edges, edges.nextafter(torch.tensor(0.0)), edges.nextafter(edges + 1)])
    return torch.cat([sizes, -sizes, around, edges, -edges])


def test_both_are_within_a_few_units_of_the_last_place() -> None:
    x = numbers()
    inside = x[x > -MOST]
    for found, wanted, name in (
        (sigmoid(inside), torch.sigmoid(inside.double()), "sigmoid"),
        (tanh(x), torch.tanh(x.double()), "tanh"),
    ):
        unit = (wanted.float().abs() * 2.0**-23).clamp(min=2.0**-149).double()
        assert ((found.double() - wanted).abs() / unit).max() <= ULPS[name]


def test_the_ends_are_what_they_should_be() -> None:
    infinite = torch.tensor([-torch.inf, torch.inf])
    assert tanh(infinite).tolist() == [-1, 1]
    assert sigmoid(infinite)[1] == 1
    assert 0 < sigmoid(infinite)[0] <= 2e-38  # exp(-87), a normal number
    assert torch.equal(tanh(-numbers()), -tanh(numbers()))
    for function in (sigmoid, tanh):
        assert function(torch.tensor([torch.nan])).isnan().all()
        assert function(torch.empty(0, 3)).shape == (0, 3)


@pytest.mark.parametrize("function", [sigmoid, tanh])
def test_layout_changes_no_bit(function) -> None:
    x = torch.randn(7, 33)
    assert torch.equal(function(x.t()).t(), function(x))
    assert torch.equal(function(x[:, 5]), function(x)[:, 5])
