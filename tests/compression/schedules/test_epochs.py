"""A training that something changes between its epochs."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from compression.errors import CompressionError
from compression.pruning import fine_tune
from compression.schedules import train_between
from tests.support.compared import fingerprint, untouched
from tests.support.nets import RECIPE, residual, split


def nothing(model: nn.Module, progress: float) -> None: ...


def test_no_change_is_fine_tuning_bit_for_bit() -> None:
    found = train_between(residual(), split(), RECIPE, nothing)
    assert fingerprint(found) == fingerprint(fine_tune(residual(), split(), RECIPE))


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_zeros_grow_back_until_the_last_change(optimizer: str) -> None:
    seen: list[tuple[float, int]] = []

    def change(model: nn.Module, progress: float) -> None:
        weight = model.get_parameter("conv2.weight")
        seen.append((progress, int((weight[0] == 0).sum())))
        weight[0] = 0
        model.eval()

    recipe = replace(RECIPE, epochs=4, optimizer=optimizer, learning_rate=0.01)
    model = residual().train()
    with untouched(model):
        found = train_between(model, split(), recipe, change)
    assert seen == [(0.25, 0), (0.5, 0), (0.75, 0), (1.0, 0)], "what was zeroed had grown back"
    assert not found.get_parameter("conv2.weight")[0].any()
    assert not found.training


def test_a_parameter_that_is_replaced_is_refused() -> None:
    def change(model: nn.Module, _: float) -> None:
        layer = model.get_submodule("conv1")
        layer.weight = nn.Parameter(torch.zeros(8, 3, 3, 3))

    with pytest.raises(CompressionError, match=r"conv1\.weight: expected .* after epoch 1 of 2"):
        train_between(residual(), split(), RECIPE, change)
