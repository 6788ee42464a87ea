"""A student of outputs that are numbers: mean squared error beside the training's own loss."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compression import (
    Hinton,
    MeanSquared,
    Recipe,
    Split,
    Standardized,
    distill,
    fine_tune,
    fine_tune_centroids,
    learn_pruned,
    learn_shared,
    prune_gradually,
    prune_iteratively,
    quantize_aware,
    remove_channels_softly,
    share_weights,
)
from compression.distillation import names_classes, output_distance
from compression.errors import CompressionError

RECIPE = Recipe(epochs=4, batch_size=16, learning_rate=0.05)
X = torch.randn(64, 8, generator=torch.Generator().manual_seed(0))
NUMBERS = Split(X, X[:, :1] - 2 * X[:, 1:2], prepare=lambda x: x)


def net(seed: int = 0, outputs: int = 1) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, outputs))


def squared(outputs: Tensor, targets: Tensor, _: Tensor) -> Tensor:
    return F.mse_loss(outputs, targets)


def of_two(outputs: Tensor, targets: Tensor) -> Tensor:
    """Take less than a loss is given."""
    return F.mse_loss(outputs, targets)


def absent(outputs: Tensor, targets: Tensor, _: Tensor) -> Tensor:
    """Learn nothing of the targets."""
    return 0 * outputs.sum()


TRAINED: dict[str, Any] = {
    "distill": lambda m, **o: distill(
        m, net(1), NUMBERS, RECIPE, distillation=MeanSquared(alpha=0.01), **o),
    "fine_tune": lambda m, **o: fine_tune(m, NUMBERS, RECIPE, **o),
    "fine_tune_centroids": lambda m, **o: fine_tune_centroids(
        share_weights(m, num_clusters=16), NUMBERS, RECIPE, **o),
    "learn_pruned": lambda m, **o: learn_pruned(m, NUMBERS, RECIPE, amount=0.3, steps=2, **o),
    "learn_shared": lambda m, **o: learn_shared(m, NUMBERS, RECIPE, num_clusters=16, steps=2, **o),
    "prune_gradually": lambda m, **o: prune_gradually(m, NUMBERS, RECIPE, amount=0.3, **o),
    "prune_iteratively": lambda m, **o: prune_iteratively(
        m, NUMBERS, RECIPE, amount=0.3, rounds=2, **o),
    "quantize_aware": lambda m, **o: quantize_aware(m, NUMBERS, RECIPE, X, **o),
    "remove_channels_softly": lambda m, **o: remove_channels_softly(
        m, X[:1], NUMBERS, RECIPE, macs=0.8, multiple_of=1, **o),
}  # fmt: skip


@pytest.mark.parametrize("verb", TRAINED)
def test_what_trains_a_copy_trains_it_by_the_loss_of_the_task(verb: str) -> None:
    before = F.mse_loss(net()(X), NUMBERS.labels)
    trained = TRAINED[verb](net(), loss=squared)
    with torch.no_grad():
        assert F.mse_loss(trained(X), NUMBERS.labels) < 0.3 * before


@pytest.mark.parametrize("verb", TRAINED)
def test_a_loss_that_does_not_fit_is_named(verb: str) -> None:
    with pytest.raises(CompressionError, match=r"labels \(16, 1\) float32: "):
        TRAINED[verb](net(), loss=of_two)
    with pytest.raises(CompressionError, match=r"one number in a tensor .* found \(16, 1\)"):
        TRAINED[verb](net(), loss=lambda outputs, targets, _: outputs - targets)


def test_the_teacher_alone_teaches_numbers() -> None:
    teacher = fine_tune(net(1), NUMBERS, RECIPE, loss=squared)
    options: dict[str, Any] = {"loss": absent, "distillation": MeanSquared(alpha=1.0)}
    taught = distill(net(), teacher, NUMBERS, RECIPE, **options)
    with torch.no_grad():
        wanted = teacher(X)
        assert F.mse_loss(taught(X), wanted) < 0.1 * wanted.var()
        assert F.mse_loss(net()(X), wanted) > 0.5 * wanted.var()


def test_alone_a_student_learns_by_its_own_loss_and_no_teacher_runs() -> None:
    deaf = nn.Linear(3, 3)  # cannot take these inputs
    alone = distill(net(), deaf, NUMBERS, RECIPE, loss=squared, distillation=Hinton(alpha=0.0))
    plain = fine_tune(net(), NUMBERS, RECIPE, loss=squared)
    assert torch.equal(alone(X), plain(X))


@pytest.mark.parametrize("lesson", [Hinton(), Standardized()])
def test_numbers_are_no_classes(lesson: Any) -> None:
    with pytest.raises(
        CompressionError, match=r"\(\) compares probabilities of classes.*MeanSquared"
    ):
        distill(net(), net(1), NUMBERS, RECIPE, loss=squared, distillation=lesson)


def test_a_loss_of_classes_stands_beside_the_teacher_s_probabilities() -> None:
    train = Split(X, (X[:, 0] > 0).long(), prepare=lambda x: x)

    def margin(logits: Tensor, labels: Tensor, _: Tensor) -> Tensor:
        return F.multi_margin_loss(logits, labels)

    recipe = replace(RECIPE, epochs=16)
    teacher = fine_tune(net(1, 2), train, recipe)
    for lesson, loss in ((Hinton(), margin), (MeanSquared(), margin), (MeanSquared(), None)):
        taught = distill(net(0, 2), teacher, train, recipe, loss=loss, distillation=lesson)
        assert (taught(X).argmax(1) == train.labels).float().mean() > 0.85, lesson


def test_the_distance_is_of_what_both_give() -> None:
    a, b = torch.randn(4, 3), torch.randn(4, 3)
    right = F.mse_loss(a, b)
    assert torch.allclose(output_distance(a, b), right)
    assert torch.allclose(output_distance({"out": a, "aux": b}, {"out": b}), right)
    assert torch.allclose(output_distance((a, [a]), (b, [b])), 2 * right)
    with pytest.raises(CompressionError, match=r"one shape, found out \(4, 3\) .* \(4, 2\)"):
        output_distance({"out": a}, {"out": b[:, :2]})
    with pytest.raises(CompressionError, match="found a dict and a Tensor"):
        output_distance({"out": a}, b)
    with pytest.raises(CompressionError, match="alpha, the teacher's share"):
        MeanSquared(alpha=0.0)


def test_which_labels_name_classes() -> None:
    logits = torch.zeros(4, 3, 5)
    assert names_classes(logits, torch.zeros(4, 5, dtype=torch.uint8))
    assert names_classes(logits, logits.softmax(1))
    assert not names_classes(logits, logits)
    assert not names_classes({"out": logits}, torch.zeros(4, 5))
    assert not names_classes(torch.zeros(4, 1), torch.zeros(4, dtype=torch.long))
