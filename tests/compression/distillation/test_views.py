"""Batches that come again: what is drawn, and a teacher that answers each of them once."""

from dataclasses import replace
from importlib import import_module
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import compression as c
from benchmarks.baseline.data import Augment
from compression.distillation.answers import Remembered
from compression.training.batches import batches
from tests.support.compared import fingerprint
from tests.support.nets import residual, split

CPU = torch.device("cpu")
RECIPE = c.Recipe(epochs=6, batch_size=8, learning_rate=0.02, cutout=2, views=2)
TRAIN = replace(split(20), augment=Augment(shift=1))
BATCHES = 3
"""Of an epoch."""


def seen(recipe: c.Recipe, epoch: int) -> list[Tensor]:
    return [part for batch in batches(TRAIN, recipe, epoch, CPU) for part in batch]


def same(one: list[Tensor], other: list[Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(one, other, strict=True))


def asking(teacher: nn.Module) -> list[Tensor]:
    asked: list[Tensor] = []
    teacher.register_forward_pre_hook(lambda _, inputs: asked.append(inputs[0]))
    return asked


def test_epochs_come_again_after_as_many_as_there_are_views() -> None:
    first, second, *later = (seen(RECIPE, epoch) for epoch in range(5))
    assert same(first, later[0])
    assert same(second, later[1])
    assert same(first, later[2])
    assert not same(first, second)
    without = replace(RECIPE, views=0)
    assert same(first, seen(without, 0)), "the first views are those of a recipe without"
    assert not any(same(first, seen(without, epoch)) for epoch in range(1, 5))


@pytest.mark.parametrize(
    ("options", "epochs_asked"),
    [
        ({}, 2),
        ({"views": 0}, 6),
        ({"views": 6}, 6),
        ({"views": 1}, 1),
        ({"coarse_sizes": (4, 4, 4)}, 4),  # two views of 4 pixels, then both of all pixels
    ],
    ids=str,
)
def test_a_teacher_answers_each_batch_once(options: dict[str, Any], epochs_asked: int) -> None:
    teacher = residual(seed=1)
    asked = asking(teacher)
    c.distill(residual(), teacher, TRAIN, replace(RECIPE, **options))
    assert len(asked) == epochs_asked * BATCHES


@pytest.mark.parametrize("distillation", [c.Hinton(), c.Standardized(), c.Dist()], ids=str)
def test_what_is_remembered_teaches_bit_for_bit_as_what_is_asked_again(
    monkeypatch: pytest.MonkeyPatch, distillation: Any
) -> None:
    teacher = residual(seed=1)
    remembered = c.distill(residual(), teacher, TRAIN, RECIPE, distillation=distillation)
    room = import_module(
        "compression.distillation.taught"
    )  # the package has a function of its name
    monkeypatch.setattr(room, "Remembered", lambda teach: teach)
    asked = asking(teacher)
    again = c.distill(residual(), teacher, TRAIN, RECIPE, distillation=distillation)
    assert len(asked) == RECIPE.epochs * BATCHES
    assert fingerprint(again) == fingerprint(remembered)


def test_layers_are_watched_at_each_step() -> None:
    teacher = residual(seed=1)
    asked = asking(teacher)
    by = c.AttentionTransfer({"conv1": "conv1"}, logits=c.Hinton())
    c.distill(residual(), teacher, TRAIN, RECIPE, distillation=by)
    assert len(asked) == RECIPE.epochs * BATCHES


def test_a_result_is_of_the_very_numbers_of_their_place_type_and_layout() -> None:
    asked: list[Tensor] = []

    def function(x: Tensor) -> Tensor:
        asked.append(x)
        return x.sum()

    x = torch.arange(2.0 * 3 * 4 * 5).view(2, 3, 4, 5)
    moved = x.clone()
    moved[0, 0, 0, :2] = torch.tensor([1.0, 0.0])
    others = [
        x, moved, x.flip(0), x.double(), x.bfloat16(), x.view(2, 3, 20), x[:1], -x, x.to(torch.uint8),
        x.contiguous(memory_format=torch.channels_last), x.transpose(2, 3), x[..., ::2], x[..., :3],
        torch.zeros(0, 3), x.view(torch.int32),
    ]  # fmt: skip
    remembered = Remembered(function)
    for _ in range(2):
        for other in others:
            assert torch.equal(remembered(other.clone()), other.sum())
    assert len(asked) == len(others)
