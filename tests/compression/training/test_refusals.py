"""Training names what it cannot train, and what it cannot train by."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from compression.errors import CompressionError, UnsupportedTypeError
from compression.training import Split, correct_images, fit, predict
from tests.support.functional import Net
from tests.support.nets import RECIPE, mlp, split
from tests.support.training_nets import ONE, noise


def frozen() -> nn.Module:
    return mlp().requires_grad_(False)


def two_devices() -> nn.Module:
    model = nn.Sequential(mlp(), nn.Linear(4, 4))
    model.register_buffer("elsewhere", torch.ones(1, device="meta"))
    return model


def twice(x: Tensor) -> Any:
    return x, x


def wrong_inside() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Sequential(nn.Flatten(), nn.Linear(99, 5)))


REFUSED: dict[str, tuple[Callable[[], nn.Module], Split, str]] = {
    "no parameters": (nn.Flatten, split(8), "Flatten has no parameters: there is nothing to train"),
    "all frozen": (frozen, split(8), "all 4 parameters of Sequential are frozen: set requires_grad"),
    "two devices": (two_devices, split(8), r"several devices \(0.1.weight on cpu, elsewhere on meta"),
    "lazy": (lambda: nn.LazyLinear(4), noise(8, 6), "weight: expected a parameter with values"),
    "a tuple": (lambda: nn.LSTM(3, 4), noise(8, 3), r"LSTM: expected one tensor .*found a tuple of 2"),
    "a dict": (
        lambda: Net(lambda s, x: {"out": s.fc(x)}, fc=nn.Linear(6, 5)),
        noise(8, 6),
        "found a dict with 'out'; wrap it in a module",
    ),
    "choices for logits": (
        lambda: Net(lambda s, x: s.fc(x).argmax(1), fc=nn.Linear(6, 5)),
        noise(8, 6),
        "expected one tensor of floating-point logits, found a tensor of int64",
    ),
    "float64": (
        lambda: nn.Linear(6, 5),
        replace(noise(8, 6), prepare=lambda x: x.double()),
        r"a batch of inputs \(4, 6\) float64",
    ),
    "pixels as they are": (
        lambda: nn.Conv2d(3, 5, 3),
        replace(split(8), prepare=lambda x: x.mul(99).to(torch.uint8)),
        r"a batch of inputs \(4, 3, 8, 8\) uint8",
    ),
    "a shape within": (wrong_inside, split(8), r"1.1 \(Linear\): the network cannot train on a batch"),
    "a line": (
        lambda: Net(lambda s, x: s.fc(x.view(7, 3)), fc=nn.Linear(6, 5)), noise(8, 6),
        r"Net, line \d+ of functional.py: the network cannot train",
    ),
    "a label too many": (mlp, replace(split(8), labels=torch.arange(8)), r"in 0\.\.3.*found 0 to 7"),
    "a label below": (mlp, replace(split(8), labels=-split(8).labels - 1), "found -2 to -1"),
    "labels of another shape": (
        mlp, replace(split(8), labels=torch.zeros(8, 2).long()),
        r"epoch 1 of 1: inputs \(4, 3, 8, 8\) float32, labels \(4, 2\) int64",
    ),
    "a prepare of two": (mlp, replace(split(8), prepare=twice), "found tuple"),
    "a prepare that fails": (
        mlp, replace(split(8), prepare=lambda x: x.view(3, 5)),
        r"a batch \(4, 3, 8, 8\) float32 cannot be made into inputs \(prepare and augment\)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_trained_is_named(name: str) -> None:
    build, data, message = REFUSED[name]
    model = build()
    with pytest.raises(CompressionError, match=message):
        fit(model, data, ONE)


def test_a_coarse_size_that_the_network_cannot_take_is_named() -> None:
    with pytest.raises(CompressionError, match=r"images of 6 pixels.*leave the recipe's coarse_si"):
        fit(mlp(), split(8), replace(ONE, coarse_sizes=(6,)))


LOSSES: dict[str, tuple[Callable[..., Any], str]] = {
    "a loss per image": (lambda logits, *_: logits.sum(1), r"shape \(\), found \(4,\) float32"),
    "a number": (lambda *_: 1.0, "found float"),
    "a loss that is detached": (lambda logits, *_: logits.detach().sum(), "was it detached"),
    "a loss that fails": (lambda logits, *_: logits["x"], "epoch 1 of 1: inputs .*IndexError|Type"),
}


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_without_a_step_is_named(name: str) -> None:
    loss, message = LOSSES[name]
    with pytest.raises(CompressionError, match=message):
        fit(mlp(), split(8), ONE, loss=loss)


@pytest.mark.parametrize("given", [{}, {"model": 3}, {"epoch": 0}])
def test_a_state_of_something_else_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(
        CompressionError, match="resume_from is no state of this network and recipe"
    ):
        fit(mlp(), split(8), ONE, resume_from=given)


@pytest.mark.parametrize("options", [
    {"warmup": 1.0}, {"momentum": -0.1}, {"weight_decay": float("nan")}, {"label_smoothing": 2.0},
    {"seed": 0.5}, {"batch_size": True}, {"coarse_sizes": (6.5,)}, {"views": -1}, {"cutout": 0.5},
])  # fmt: skip
def test_numbers_that_no_optimizer_can_use_are_refused(options: dict[str, Any]) -> None:
    (field,) = options
    with pytest.raises(CompressionError, match=field):
        replace(RECIPE, **options)


def test_a_split_holds_tensors_and_gives_at_least_one_image() -> None:
    data = split(8)
    with pytest.raises(
        UnsupportedTypeError, match=r"labels must be a tensor \(N, \.\.\.\), found list"
    ):
        Split(data.images, [0] * 8, data.prepare)  # type: ignore[arg-type]
    with pytest.raises(
        UnsupportedTypeError, match=r"images must be a tensor .* found a 0-dim tensor"
    ):
        Split(torch.ones(()), data.labels, data.prepare)
    for count in (0, -1):
        with pytest.raises(CompressionError, match=f"at least one image, asked for {count}"):
            data.take(count)


def test_predictions_that_are_none_are_named() -> None:
    with pytest.raises(UnsupportedTypeError, match="LSTM: expected one tensor"):
        predict(nn.LSTM(3, 4), noise(8, 3))
    with pytest.raises(CompressionError, match=r"1.1 \(Linear\): the model cannot take a batch"):
        predict(wrong_inside(), split(8))
    with pytest.raises(CompressionError, match=r"expected logits \(8, classes"):
        predict(Net(lambda _, x: x.sum(0)), split(8))
    with pytest.raises(CompressionError, match=r"a label for each choice .* found labels \(8, 4\)"):
        correct_images(mlp(), replace(split(8), labels=torch.zeros(8, 4)))
    pixels = noise(9, 3, 8, 8, labels=(8, 8))
    assert correct_images(nn.Conv2d(3, 5, 3, padding=1), pixels).shape == (9, 8, 8)
