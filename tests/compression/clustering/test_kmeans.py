"""The codebook of one tensor."""

from functools import partial
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from compression.clustering import (
    INITS,
    cluster,
    initial_centroids,
)
from compression.errors import CompressionError
from tests.support.strategies import VALUES, tensor, tensors

INIT = st.sampled_from(INITS)
OPTIONS = st.fixed_dictionaries({"num_clusters": st.integers(1, 8), "init": INIT})
LAPLACIAN = torch.distributions.Laplace(0.0, 0.05).icdf(torch.linspace(0.0005, 0.9995, 5_000))
START = partial(initial_centroids, LAPLACIAN, num_clusters=16)


def clustered(values: Tensor, **options: Any) -> Tensor:
    codebook, indices = cluster(values, **options)
    return codebook[indices.long()]


def distances(values: Tensor, codebook: Tensor) -> Tensor:
    return (values.double().reshape(-1, 1) - codebook.double()).square()


def test_initial_centroids_by_hand() -> None:
    values = torch.tensor([7.0, 0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    linear = initial_centroids(values, num_clusters=3, init="linear")
    assert (linear.dtype, linear.tolist()) == (torch.float64, [0.0, 3.5, 7.0])
    assert initial_centroids(values, num_clusters=2, init="density").tolist() == [2.0, 6.0]
    drawn = initial_centroids(values, num_clusters=8, init="random")
    assert drawn.tolist() == values.sort().values.tolist()
    # Density puts more of them into the bulk.
    bulk = {init: int((START(init=init).abs() < 0.05).sum()) for init in INITS}
    assert bulk["density"] > 2 * bulk["linear"]


def test_random_centroids_are_seeded_and_leave_the_global_generator() -> None:
    state = torch.get_rng_state()
    drawn = [START(init="random", seed=seed) for seed in (1, 1, 2)]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    assert torch.equal(torch.get_rng_state(), state)


@given(tensors(), OPTIONS, st.sampled_from([0.0, 1e-3, 0.3]), st.booleans())
def test_codes_are_the_cheapest_and_the_means_of_their_values(
    values: Tensor, options: dict[str, Any], bit_cost: float, zero: bool
) -> None:
    codebook, indices = cluster(values, bit_cost=bit_cost, zero=zero, **options)
    assert codebook.dtype == torch.float32
    assert (indices.dtype, indices.shape) == (torch.uint8, values.shape)
    assert indices.unique().tolist() == list(range(len(codebook)))
    assert len(codebook) <= options["num_clusters"]
    assert (codebook.diff() > 0).all()
    assert not torch.signbit(codebook[codebook == 0]).any()
    # Prefix sums in float64 lose at most this of a cell's own beside the largest values.
    lost = values.double().abs().sum().item() * values.numel() * 2**-52
    for code, centroid in enumerate(codebook.tolist()):
        mean = values[indices == code].double().mean().item()
        if not (zero and centroid == 0):
            assert centroid == pytest.approx(mean, rel=2**-23, abs=lost + 2e-45)
    chosen = indices.flatten().long()
    bits = -(chosen.bincount().double() / len(chosen)).log2()
    costs = distances(values, codebook) + bit_cost * values.double().square().mean() * bits
    excess = costs.gather(1, chosen[:, None])[:, 0] - costs.min(dim=1).values
    # An edge between cells is rounded to float64: two codes cost the same up to this beside it.
    # Zeros stay zero at any price.
    assert (excess[~(zero & (values.flatten() == 0))] <= 1e-12 * costs.max()).all()


@given(tensors(), OPTIONS)
def test_no_iteration_adds_error(values: Tensor, options: dict[str, Any]) -> None:
    errors = [distances(values, initial_centroids(values, **options)).min(dim=1).values.mean()]
    for iterations in (1, 2, 3, 1000):
        codebook, indices = cluster(values, iterations=iterations, **options)
        chosen = indices.reshape(-1, 1).long()
        errors.append(distances(values, codebook).gather(1, chosen).mean())
    # Rounding a centroid to float32 moves it by this at most.
    slack = (values.double().abs().max() * 2**-24).square()
    assert all(after <= before * (1 + 1e-9) + slack for before, after in pairwise(errors))


@given(st.lists(VALUES, min_size=1, max_size=6), st.integers(0, 40), INIT, st.booleans())
def test_few_values_stay_exact(pool: list[float], more: int, init: str, zero: bool) -> None:
    values = tensor((pool * (more + 1))[: len(pool) + more], (-1,))
    count = len(values.unique()) + zero
    assert torch.equal(clustered(values, num_clusters=count, init=init, zero=zero), values)


@given(tensors(), OPTIONS)
def test_clustering_twice_changes_nothing(values: Tensor, options: dict[str, Any]) -> None:
    once = clustered(values, **options)
    assert torch.equal(clustered(once, **options), once)


@pytest.mark.parametrize("init", INITS)
@pytest.mark.parametrize("bit_cost", [0.001, 0.01, 0.1])
def test_a_price_on_bits_buys_entropy_with_error(init: str, bit_cost: float) -> None:
    found = []
    for price in (0.0, bit_cost):
        codebook, indices = cluster(LAPLACIAN, num_clusters=16, init=init, bit_cost=price)
        shares = indices.bincount().double() / len(indices)
        bits = -(shares * shares.log2()).sum()
        error = (LAPLACIAN - codebook[indices.long()]).double().square().mean()
        found.append((bits, error / LAPLACIAN.double().square().mean() + bit_cost * bits))
    (free_bits, free_cost), (bits, cost) = found
    assert bits < free_bits
    assert cost < free_cost


def test_zero_is_pinned_and_gathers_small_values() -> None:
    new = clustered(LAPLACIAN, num_clusters=16, bit_cost=0.05, zero=True)
    assert (new == 0).sum() > 1_000
    alone = clustered(torch.tensor([0.0, -0.0]), num_clusters=1, zero=True)
    assert str(alone.tolist()) == "[0.0, 0.0]"
    # Zeros stay zero where another code is cheaper.
    values = torch.tensor([0.0] + [0.01] * 999 + [1.0])
    new = clustered(values, num_clusters=4, bit_cost=0.1, zero=True)
    assert new[0] == 0 < new[1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"values": torch.tensor([1.0, float("nan")])}, "found 1 of 2"),
        ({"values": torch.tensor([1.0, -float("inf")])}, "expected finite"),
        ({"values": torch.ones(0)}, "found 0 of 0"),
        ({"values": torch.ones(2, dtype=torch.int8)}, r"floating numbers, found torch\.int8"),
        ({"num_clusters": 0}, r"num_clusters must lie in 1\.\.256, found 0"),
        ({"num_clusters": 257}, "found 257"),
        ({"bit_cost": -0.1}, "bit_cost must be finite and at least 0"),
        ({"bit_cost": float("inf")}, "bit_cost"),
        ({"init": "k++"}, r"one of linear, density, random, found 'k\+\+'"),
        ({"iterations": 0}, "iterations must be at least 1, found 0"),
    ],
)
def test_what_cannot_be_clustered_is_refused(options, message) -> None:
    with pytest.raises(CompressionError, match=message):
        cluster(**{"values": torch.ones(2), "num_clusters": 4, **options})
