from dataclasses import replace
from typing import Any

import pytest
import torch

from compression.errors import CompressionError
from compression.training import EpochReport, Recipe, Split, correct_images, fit, predict
from tests.support.nets import RECIPE, residual, split


def weights(model: torch.nn.Module) -> list[torch.Tensor]:
    return [t.clone() for t in model.state_dict().values()]


def equal(a: list[torch.Tensor], b: list[torch.Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_the_same_seed_gives_the_same_weights_and_another_does_not() -> None:
    found = []
    for seed in (0, 0, 1):
        model = residual()
        fit(model, split(), replace(RECIPE, seed=seed))
        found.append(weights(model))
    assert equal(found[0], found[1])
    assert not equal(found[0], found[2])


def test_training_taken_up_again_gives_the_same_weights() -> None:
    recipe, states = replace(RECIPE, epochs=3), []

    def keep(report: EpochReport) -> None:
        state = report.state()
        copied: dict[str, Any] = torch.utils._pytree.tree_map(
            lambda x: x.clone() if isinstance(x, torch.Tensor) else x, state
        )
        states.append(copied)

    whole = residual()
    fit(whole, split(), recipe, on_epoch=keep)
    resumed = residual(seed=7)
    fit(resumed, split(), recipe, resume_from=states[0])
    assert equal(weights(whole), weights(resumed))


def test_training_learns() -> None:
    model, data = residual(), split(256)
    fit(model, data, Recipe(epochs=15, batch_size=32, learning_rate=0.05))
    assert correct_images(model, data).float().mean() > 0.9


@pytest.mark.parametrize("schedule", ["one-cycle", "cosine", "step", "constant"])
@pytest.mark.parametrize("optimizer", ["sgd", "adam", "muon"])
def test_every_recipe_trains(schedule: Any, optimizer: Any) -> None:
    model = residual()
    before = weights(model)
    recipe = Recipe(1, 16, 0.01, optimizer, schedule, coarse_sizes=(6,))
    fit(model, split(), recipe)
    assert not equal(before, weights(model))


def test_a_loss_of_nan_stops_with_epoch_and_rate() -> None:
    data = split()
    broken = Split(torch.full_like(data.images, float("nan")), data.labels, data.prepare)
    with pytest.raises(CompressionError, match=r"epoch 1 of 2 at learning rate 0\.0"):
        fit(residual(), broken, RECIPE)


@pytest.mark.parametrize(
    "options",
    [
        {"epochs": 0},
        {"batch_size": 0},
        {"learning_rate": 0.0},
        {"learning_rate": float("nan")},
        {"optimizer": "lion"},
        {"schedule": "poly"},
        {"precision": "int8"},
        {"cutout": -1},
        {"cutout": 0.5},
    ],
)
def test_a_recipe_that_cannot_be_followed_is_refused(options: dict[str, Any]) -> None:
    (field,) = options
    with pytest.raises(CompressionError, match=field):
        replace(RECIPE, **options)


def test_an_empty_split_is_refused() -> None:
    with pytest.raises(CompressionError, match="0 images"):
        Split(torch.empty(0, 3, 8, 8), torch.empty(0, dtype=torch.int64), prepare=lambda x: x)


def test_predict_restores_the_mode_and_keeps_the_order() -> None:
    model, data = residual().train(), split(10)
    logits = predict(model, data, batch_size=3)
    assert model.training
    with torch.no_grad():
        whole = model.eval()(data.images)
    assert torch.allclose(logits, whole, atol=1e-5)
    with pytest.raises(CompressionError, match="batch_size"):
        predict(model, data, batch_size=0)
