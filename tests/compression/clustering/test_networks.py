"""Networks whose layers share few values."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from compression.clustering import (
    INITS,
    fine_tune_centroids,
    keep_sharing,
    share_weights,
    shared_values,
)
from compression.errors import CompressionError, UnsupportedTypeError
from compression.pruning import prune_l1_unstructured, sparsity
from compression.training import Recipe
from tests.support.nets import RECIPE, mlp, residual, split


@pytest.mark.parametrize("make", [residual, mlp])
@pytest.mark.parametrize("init", INITS)
@pytest.mark.parametrize("bit_cost", [0.0, 0.02])
@pytest.mark.parametrize("amount", [0.0, 0.6])
def test_layers_of_a_copy_take_few_values_and_keep_zeros(make, init, bit_cost, amount) -> None:
    model = prune_l1_unstructured(make(), amount=amount)
    before = copy.deepcopy(model.state_dict())
    shared = share_weights(model, num_clusters=8, init=init, bit_cost=bit_cost)
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())
    assert list(shared.state_dict()) == list(before)
    assert max(shared_values(shared).values()) <= 8
    assert bit_cost > 0 or sparsity(shared) == sparsity(model)
    for old, new in zip(model.parameters(), shared.parameters(), strict=True):
        assert torch.equal(old, new) == (old.ndim == 1)
        assert (new[old == 0] == 0).all()
        assert not torch.signbit(new[new == 0]).any()


def test_the_number_of_values_counts_zero() -> None:
    assert shared_values(share_weights(mlp(), num_clusters=8)) == {"1": 8, "3": 8}
    pruned = prune_l1_unstructured(mlp(), amount=0.5)
    assert shared_values(share_weights(pruned, num_clusters=8, init="density")) == {"1": 8, "3": 8}
    pruned.get_parameter("1.weight").data.zero_().neg_()
    assert shared_values(share_weights(pruned, num_clusters=2)) == {"1": 1, "3": 2}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_keep_their_dtype(dtype: torch.dtype) -> None:
    shared = share_weights(mlp().to(dtype), num_clusters=4, bit_cost=0.01)
    assert {t.dtype for t in shared.parameters()} == {dtype}
    assert max(shared_values(shared).values()) <= 4


def test_a_tied_weight_stays_tied() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 192), nn.ReLU(), nn.Linear(192, 192))
    model[3].weight = model[1].weight
    shared = share_weights(model, num_clusters=4)
    tuned = fine_tune_centroids(shared, split(), RECIPE)
    for network in (shared, tuned):
        assert network[1].weight is network[3].weight
        assert shared_values(network) == {"1": 4, "3": 4}


def test_a_model_that_cannot_be_shared_is_refused() -> None:
    with pytest.raises(CompressionError, match=r"num_clusters must lie in 2\.\.256, found 1"):
        share_weights(mlp(), num_clusters=1)
    with pytest.raises(UnsupportedTypeError, match=r"0: expected floating weights"):
        share_weights(nn.Sequential(nn.Linear(2, 2, dtype=torch.complex64)), num_clusters=4)
    with pytest.raises(CompressionError, match=r"1: .* found 3\d{3}; call share_weights first"):
        fine_tune_centroids(mlp(), split(), RECIPE)


@pytest.mark.parametrize("options", [{}, {"optimizer": "adam"}, {"precision": "bfloat16"}])
def test_fine_tuning_keeps_who_shares_and_trains_a_copy(options) -> None:
    recipe = Recipe(epochs=8, batch_size=16, learning_rate=0.02, **options)
    model = share_weights(prune_l1_unstructured(residual(), amount=0.5), num_clusters=8)
    model.get_parameter("fc.weight").data.neg_()  # its zeros are -0.0
    before = copy.deepcopy(model.state_dict())
    tuned = fine_tune_centroids(model, split(), recipe)
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())
    assert list(copy.deepcopy(tuned).state_dict()) == list(before)
    assert [vars(m).keys() for m in tuned.modules()] == [vars(m).keys() for m in model.modules()]
    for name in shared_values(model):
        old, new = (network.get_parameter(f"{name}.weight") for network in (model, tuned))
        pairs = torch.stack([old.flatten(), new.flatten()]).unique(dim=1)
        assert pairs.shape[1] == len(old.unique()) == len(new.unique())
        assert torch.equal(old == 0, new == 0)
        assert not torch.equal(old, new)
    before, after = (F.cross_entropy(m(split().images), split().labels) for m in (model, tuned))
    assert after < before


def test_a_centroid_moves_by_the_mean_of_its_members_gradients() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 4, bias=False))
    shared, data = share_weights(model, num_clusters=6), split()
    weight = shared.get_parameter("1.weight").detach()
    codebook, members = weight.unique(return_inverse=True)
    # Two dimensions, since the recipe's weight decay is for weights; batches are the whole split.
    codebook = codebook[:, None].clone().requires_grad_()
    optimizer = torch.optim.SGD([codebook], lr=0.05, momentum=0.9, nesterov=True, weight_decay=5e-4)
    for _ in range(4):
        logits = F.linear(data.images.flatten(1), codebook.flatten()[members])
        (sums,) = torch.autograd.grad(F.cross_entropy(logits, data.labels), codebook)
        codebook.grad = sums / members.flatten().bincount()[:, None]
        optimizer.step()
    recipe = Recipe(epochs=4, batch_size=64, learning_rate=0.05, schedule="constant")
    tuned = fine_tune_centroids(shared, data, recipe).get_parameter("1.weight")
    assert (tuned - weight).abs().min() > 1e-4
    torch.testing.assert_close(tuned.detach(), codebook.detach().flatten()[members])


def test_attention_and_recurrent_layers_share_values_too() -> None:
    torch.manual_seed(0)
    layers = {"a": nn.MultiheadAttention(8, 2), "l": nn.LSTM(8, 8), "b": nn.Bilinear(4, 4, 4)}
    model = nn.ModuleDict(layers)
    shared = share_weights(model, num_clusters=4)
    names = {"a.in_proj_weight", "a.out_proj", "l.weight_ih_l0", "l.weight_hh_l0", "b"}
    assert shared_values(shared) == dict.fromkeys(names, 4)
    again = keep_sharing(shared)
    with torch.no_grad():
        for parameter in shared.parameters():
            parameter.add_(torch.randn_like(parameter))
    again()
    assert max(shared_values(shared).values()) == 4


def test_weights_beyond_float32_are_named() -> None:
    model = nn.Sequential(nn.Linear(2, 2).double())
    with torch.no_grad():
        model[0].weight.fill_(1e300)
    with pytest.raises(CompressionError, match="0: found weights beyond float32"):
        share_weights(model, num_clusters=4)
