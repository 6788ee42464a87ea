"""Learning-compression: exactly sparse, or exactly few values, which the training moved towards."""

from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from compression.clustering import cluster, share_weights, shared_values
from compression.errors import CompressionError
from compression.pruning import fine_tune, prune_l1_global, prune_l1_unstructured, sparsity
from compression.schedules import learn_pruned, learn_shared
from compression.schedules.learned import codebooks
from compression.schedules.learning import Pace
from compression.schedules.multipliers import Multipliers
from compression.weights import weights
from tests.support.nets import RECIPE, mlp, residual, split


@pytest.mark.parametrize("scope", ["global", "layer"])
def test_the_sparsity_is_exact(scope: Any) -> None:
    learned = learn_pruned(residual(), split(), RECIPE, amount=0.75, steps=3, scope=scope)
    assert sparsity(learned) == 0.75
    each = {int((w.tensor == 0).sum()) / w.tensor.numel() for w in weights(learned)}
    assert (each == {0.75}) == (scope == "layer")


def test_layers_take_few_values_and_zeros_stay() -> None:
    model = prune_l1_unstructured(residual(), amount=0.5)
    learned = learn_shared(model, split(), RECIPE, num_clusters=4, steps=3)
    assert shared_values(learned) == {"conv1": 4, "conv2": 4, "fc": 4}
    for before, after in zip(weights(model), weights(learned), strict=True):
        assert torch.equal(before.tensor == 0, after.tensor == 0)
    dense = learn_shared(residual(), split(), RECIPE, num_clusters=3, steps=3, init="density")
    assert shared_values(dense) == {"conv1": 3, "conv2": 3, "fc": 3}


def distances(monkeypatch: pytest.MonkeyPatch, **options: Any) -> list[float]:
    """Return how far weights are from their compressed form at each compression."""
    found: list[float] = []
    advance = Multipliers.advance

    def watched(self: Multipliers) -> None:
        advance(self)
        pairs = zip(self.weights, self.theta, strict=True)
        found.append(sum(float((w.detach() - t).square().sum()) for w, t in pairs))

    with monkeypatch.context() as patch:
        patch.setattr(Multipliers, "advance", watched)
        learn_pruned(residual(), split(), RECIPE, amount=0.75, **options)
    return found


def test_the_pull_brings_weights_to_their_compressed_form(monkeypatch: pytest.MonkeyPatch) -> None:
    pulled = distances(monkeypatch, steps=8, mu=1.0, until=1)
    free = distances(monkeypatch, steps=8, mu=1e-6, until=1)
    assert len(pulled) == len(free) == 8
    assert pulled[-1] < 0.2 * free[-1]


@pytest.mark.parametrize(
    ("steps", "until", "turns"),
    [(1, 1.0, [8]), (3, 1.0, [2, 5, 8]), (4, 0.5, [1, 2, 3, 4]), (2, 0.75, [3, 6])],
)
def test_steps_divide_the_training(
    monkeypatch: pytest.MonkeyPatch, steps: int, until: float, turns: list[int]
) -> None:
    calls: list[str] = []
    penalty = Multipliers.penalty

    def watched(self: Multipliers) -> Tensor:
        calls.append("L")
        return penalty(self)

    monkeypatch.setattr(Multipliers, "advance", lambda _: calls.append("C"))
    monkeypatch.setattr(Multipliers, "penalty", watched)
    learn_pruned(residual(), split(), RECIPE, amount=0.5, steps=steps, until=until)
    found = [calls[: i + 1].count("L") for i, call in enumerate(calls) if call == "C"]
    assert found == turns
    assert calls.count("L") == turns[-1], "no pull behind the last compression"


def test_the_first_mu_is_the_recipes_unless_it_is_given() -> None:
    recipe, pace = replace(RECIPE, momentum=0.8, learning_rate=0.1), Pace(10, None, 2.0, 1.0)
    assert pace.first(recipe, 200) == pytest.approx(0.01)  # 0.1 * 0.2 * 10 / (0.1 * 200)
    assert pace.first(replace(recipe, optimizer="adam"), 200) == pytest.approx(0.005)
    assert Pace(10, 1e-3, 2.0, 1.0).first(recipe, 200) == 1e-3


@pytest.mark.parametrize("until", [0.5, 1.0])
def test_weights_are_the_last_theta_and_keep_its_form(
    monkeypatch: pytest.MonkeyPatch, until: float
) -> None:
    settled: list[list[Tensor]] = []
    settle = Multipliers.settle

    def watched(self: Multipliers) -> None:
        settle(self)
        settled.append([w.detach().clone() for w in self.weights])
        assert all(torch.equal(w, t) for w, t in zip(settled[-1], self.theta, strict=True))

    monkeypatch.setattr(Multipliers, "settle", watched)
    for learn in (partial(learn_pruned, amount=0.5), partial(learn_shared, num_clusters=4)):
        learned = learn(residual(), split(), RECIPE, steps=2, until=until)
        for theta, weight in zip(settled.pop(), weights(learned), strict=True):
            assert torch.equal(theta == 0, weight.tensor == 0)
            assert torch.equal(theta, weight.tensor) == (until == 1), "it trains on within the form"


def test_hardly_any_pull_is_compression_after_training() -> None:
    """With mu near 0 the weights train freely, and the last compression is direct."""
    learned = learn_pruned(residual(), split(), RECIPE, amount=0.6, steps=1, mu=1e-12, until=1)
    direct = prune_l1_global(fine_tune(residual(), split(), RECIPE), amount=0.6)
    for found, wanted in zip(learned.parameters(), direct.parameters(), strict=True):
        assert torch.allclose(found, wanted, atol=1e-6)


def test_a_second_codebook_starts_where_the_first_ended() -> None:
    torch.manual_seed(0)
    values = torch.randn(400)
    compress = codebooks([torch.zeros(400, dtype=torch.bool)], 8, "linear", 0)
    first = compress([values])[0]
    book, codes = cluster(values, num_clusters=8)
    assert torch.equal(first, book[codes.long()])
    moved = values + 0.01 * torch.randn(400)
    warm, codes = cluster(moved, num_clusters=8, start=book)
    assert torch.equal(compress([moved])[0], warm[codes.long()])
    errors = [(moved - part).square().mean() for part in (warm[codes.long()], first)]
    assert errors[0] < errors[1]


def test_a_start_of_k_means_is_kept_to() -> None:
    values = torch.tensor([0.0, 1.0, 10.0, 11.0])
    book, _ = cluster(values, num_clusters=2, start=torch.tensor([0.4, 10.4]))
    assert book.tolist() == [0.5, 10.5]
    poor, _ = cluster(values, num_clusters=2, start=torch.tensor([0.0, 1.0]), iterations=1)
    assert poor.tolist() == [0.0, pytest.approx(22 / 3)]
    with pytest.raises(CompressionError, match="start: expected at most 2 centroids, found 3"):
        cluster(values, num_clusters=2, start=torch.zeros(3))


def test_a_layer_of_zeros_stays_one() -> None:
    model = mlp()
    with torch.no_grad():
        model.get_parameter("1.weight").zero_()
    learned = learn_shared(model, split(), RECIPE, num_clusters=4, steps=2)
    assert not learned.get_parameter("1.weight").any()
    assert shared_values(learned)["3"] == 4


def test_few_values_stay_and_share_weights_agrees() -> None:
    shared = share_weights(mlp(), num_clusters=4)
    learned = learn_shared(shared, split(), RECIPE, num_clusters=4, steps=2)
    assert shared_values(learned) == shared_values(shared)
    assert not torch.equal(learned.get_parameter("1.weight"), shared.get_parameter("1.weight"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mu": 0}, "mu must be above 0 and finite, or None, found 0"),
        ({"mu": float("inf")}, "mu must be above 0"),
        ({"mu": True}, "mu must be above 0"),
        ({"growth": 0.5}, "growth must be 1 or more"),
        ({"steps": 0}, "steps must be a whole number of at least 1, found 0"),
        ({"steps": 2.0}, "steps must be a whole number"),
        (
            {"steps": 7, "until": 0.5},
            "steps must be at most 4, the optimizer steps that they divide, found 7",
        ),
        ({"until": 0}, "until must be a fraction above 0 and up to 1, found 0"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], message: str) -> None:
    for learn in (
        lambda: learn_pruned(residual(), split(), RECIPE, **{"amount": 0.5, "steps": 2, **options}),
        lambda: learn_shared(residual(), split(), RECIPE, **{"steps": 2, **options}),
    ):
        with pytest.raises(CompressionError, match=message):
            learn()


def test_a_wrong_codebook_is_refused() -> None:
    with pytest.raises(CompressionError, match="num_clusters"):
        learn_shared(residual(), split(), RECIPE, num_clusters=1)
    with pytest.raises(CompressionError, match="init"):
        learn_shared(residual(), split(), RECIPE, init="best")  # type: ignore[arg-type]
