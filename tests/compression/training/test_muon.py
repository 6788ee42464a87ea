"""Muon: what it makes orthogonal, on which weights, and that it is SGD on the others."""

import copy
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations
from torchvision import models

from compression import fine_tune, prune_l1_unstructured, quantize_aware
from compression.errors import CompressionError
from compression.training import EpochReport, Recipe, correct_images, fit
from compression.training.muon import TURNS, Muon, hidden_matrices, orthogonal
from compression.training.optimizers import optimizer_of
from tests.support.nets import images, residual, split
from tests.support.training_nets import changed, noise, state

MUON = Recipe(
    epochs=2, batch_size=16, learning_rate=0.02, optimizer="muon", muon_rate=0.03, muon_decay=0.1
)


def drawn(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(3, 16, 144), (2, 96, 8), (1, 12, 12)])
def test_the_result_is_about_the_orthogonal_factor(shape: Any, dtype: torch.dtype) -> None:
    matrices = drawn(*shape)
    left, sizes, right = torch.linalg.svd(matrices, full_matrices=False)
    found = torch.linalg.svdvals(orthogonal(matrices.to(dtype)).float())
    large = sizes > 0.03 * matrices.norm(dim=(1, 2)).unsqueeze(1)
    assert large.float().mean() > 0.9
    assert found.max() < 1.25
    cosine = nn.functional.cosine_similarity(
        orthogonal(matrices.to(dtype)).float().flatten(), (left @ right).flatten(), dim=0
    )
    assert cosine > 0.95


def test_singular_values_above_a_fiftieth_arrive_near_one_in_so_many_turns() -> None:
    sizes = torch.linspace(0.02, 1, 200, dtype=torch.float64)
    alone = torch.diag_embed(torch.stack([sizes, (1 - sizes**2).sqrt()], 1))  # of norm 1
    found = orthogonal(alone).diagonal(dim1=1, dim2=2)[:, 0]
    assert TURNS == 3
    assert found.min() > 0.65
    assert found.max() < 1.25
    assert torch.equal(orthogonal(torch.zeros(1, 3, 4)), torch.zeros(1, 3, 4))


def plain_steps(weights: list[Tensor], gradients: list[list[Tensor]], recipe: Recipe) -> None:
    """Train hidden matrices as the paper writes it, one at a time."""
    for weight, *turns in zip(weights, *gradients, strict=True):
        momentum = torch.zeros_like(weight)
        for gradient in turns:
            momentum = recipe.momentum * momentum + gradient
            ahead = (gradient + recipe.momentum * momentum).flatten(1)
            step = orthogonal(ahead.unsqueeze(0))[0]
            step = step * max(1, step.shape[0] / step.shape[1]) ** 0.5
            weight *= 1 - recipe.muon_rate * recipe.muon_decay
            weight -= recipe.muon_rate * step.view(weight.shape)


def test_a_step_is_that_of_a_plain_loop_and_sgds_elsewhere() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(  # two hidden weights alike, one tall
        *(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3)),
        *(nn.Flatten(), nn.Linear(8, 24), nn.Linear(24, 5)),
    ).to(memory_format=torch.channels_last)
    hidden = hidden_matrices(model)
    assert [tuple(p.shape) for p in hidden] == [(8, 8, 3, 3), (8, 8, 3, 3), (24, 8)]
    expected = copy.deepcopy(model)
    twins = [
        p for p, q in zip(expected.parameters(), model.parameters(), strict=True) if q in hidden
    ]
    rest = [p for p in expected.parameters() if not any(p is t for t in twins)]
    sgd = torch.optim.SGD(
        [
            {"params": [p for p in rest if p.ndim > 1], "weight_decay": MUON.weight_decay},
            {"params": [p for p in rest if p.ndim == 1]},
        ],
        lr=MUON.learning_rate,
        momentum=MUON.momentum,
        nesterov=True,
    )
    muon, seen = optimizer_of(model, MUON), []
    for _ in range(3):
        seen.append([torch.randn_like(p) for p in hidden])
        for p, q in zip(model.parameters(), expected.parameters(), strict=True):
            p.grad = torch.randn_like(p)
            q.grad = p.grad.clone()
        for p, gradient in zip(hidden, seen[-1], strict=True):
            p.grad = gradient.clone()
        for optimizer in (muon, sgd):
            optimizer.step()
    with torch.no_grad():
        plain_steps(twins, seen, MUON)
    for (name, p), q in zip(model.named_parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(p, q, msg=name)


NAMES: dict[str, tuple[Any, dict[str, int]]] = {
    "resnet18": (models.resnet18, {"layer1.0.conv1.weight": 1, "layer4.0.downsample.0.weight": 1}),
    "resnext50_32x4d": (models.resnext50_32x4d, {"layer2.0.conv2.weight": 32}),
    "mobilenet_v2": (models.mobilenet_v2, {"features.2.conv.0.0.weight": 1}),
    "vit_b_16": (
        partial(models.VisionTransformer, 32, 16, 2, 4, 64, 128),
        {"encoder.layers.encoder_layer_0.self_attention.in_proj_weight": 3},
    ),
}


@pytest.mark.parametrize("network", NAMES)
def test_the_hidden_matrices_of_torchvisions_networks(network: str) -> None:
    factory, some = NAMES[network]
    with torch.device("meta"):
        model = factory()
    names = {id(p): name for name, p in model.named_parameters()}
    found = {names[id(p)]: blocks for p, blocks in hidden_matrices(model).items()}
    assert some.items() <= found.items()
    matrices = [
        name
        for name, p in model.named_parameters()
        if p.ndim > 1 and len(p[0].flatten()) > 1 and p.shape[1:].numel() != 9
    ]
    left = [name for name in matrices if name not in found]
    first, *_, last = [name for name in matrices if name.endswith("weight")]
    assert {first, last} <= set(left)
    assert all(name.endswith(("token", "embedding")) for name in set(left) - {first, last})


def test_embeddings_depthwise_filters_and_tied_weights_are_left_to_sgd() -> None:
    table, tied = nn.Embedding(9, 8), nn.Linear(8, 9)
    tied.weight = table.weight
    model = nn.Sequential(
        *(nn.Linear(4, 8), table, nn.Conv1d(8, 8, 3, groups=8), tied),
        *(
            parametrizations.weight_norm(nn.Conv1d(8, 6, 3, groups=2)),
            nn.LSTM(8, 4),
            nn.Linear(8, 2),
        ),
    )
    shapes = [(tuple(p.shape), blocks) for p, blocks in hidden_matrices(model).items()]
    assert shapes == [((6, 4, 3), 2), ((16, 8), 1), ((16, 4), 1)]
    assert not hidden_matrices(nn.Linear(3, 2))


NETWORKS: dict[str, tuple[Any, tuple[int, ...]]] = {
    "residual": (residual, (3, 8, 8)),
    "linear only": (lambda: nn.Linear(6, 5), (6,)),
    "transposed and grouped": (
        lambda: nn.Sequential(
            *(nn.Conv2d(3, 8, 3), nn.ConvTranspose2d(8, 12, 2, groups=2), nn.ReLU()),
            *(nn.Conv2d(12, 12, 3, groups=3), nn.Flatten(), nn.Linear(300, 5)),
        ),
        (3, 8, 8),
    ),
    "sequences": (
        lambda: nn.Sequential(
            *(nn.Conv1d(2, 4, 3), nn.ReLU(), nn.Conv1d(4, 4, 3), nn.Conv1d(4, 4, 3, groups=4)),
            *(nn.Flatten(), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 5)),
        ),
        (2, 8),
    ),
    "mobilenet": (
        lambda: models.mobilenet_v3_small(num_classes=5, width_mult=0.25),
        (3, 32, 32),
    ),
}


@pytest.mark.parametrize("network", NETWORKS)
def test_every_network_learns_with_muon(network: str) -> None:
    factory, shape = NETWORKS[network]
    torch.manual_seed(0)
    model, data, losses = factory(), noise(16, *shape, classes=4), []
    recipe = replace(MUON, epochs=20, batch_size=8, schedule="constant")
    fit(model, data, recipe, on_epoch=lambda report: losses.append(report.mean_loss))
    assert losses[-1] < 0.9 * losses[0]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_it_learns_sooner_than_sgd(precision: Any) -> None:
    def right(recipe: Recipe) -> float:
        model, data = residual(), split(256)
        fit(model, data, recipe)
        return correct_images(model, data).float().mean().item()

    few = Recipe(epochs=3, batch_size=32, learning_rate=0.05, precision=precision)
    assert right(replace(few, optimizer="muon")) > right(few)


def test_training_taken_up_again_gives_the_same_weights() -> None:
    states: list[dict[str, Any]] = []

    def keep(report: EpochReport) -> None:
        states.append(copy.deepcopy(report.state()))

    whole, resumed, data = residual(), residual(seed=7), split()
    fit(whole, data, MUON, on_epoch=keep)
    fit(resumed, data, MUON, resume_from=states[0])
    assert not changed(resumed, state(whole))
    with pytest.raises(CompressionError, match="resume_from is no state"):
        fit(residual(), data, replace(MUON, optimizer="sgd"), resume_from=states[0])


def test_frozen_weights_stay() -> None:
    model = residual()
    for parameter in hidden_matrices(model):
        parameter.requires_grad_(False)
    before = {n: p.clone() for n, p in model.named_parameters() if not p.requires_grad}
    assert list(before) == ["conv2.weight"]
    fit(model, split(), MUON)
    assert torch.equal(before["conv2.weight"], model.conv2.weight)
    assert len(optimizer_of(model, MUON).param_groups) == 2, "no group of Muon's without weights"


def test_pruned_weights_stay_zero_and_networks_are_tuned() -> None:
    model = prune_l1_unstructured(residual(), amount=0.5)
    tuned = fine_tune(model, split(), MUON)
    for (name, p), q in zip(model.named_parameters(), tuned.parameters(), strict=True):
        assert not q[p == 0].any() or p.ndim == 1, name
        assert not torch.equal(p, q), name


def test_quantization_aware_training_takes_it() -> None:
    data = split()
    model = quantize_aware(residual(), data, MUON, data.images)
    assert correct_images(model, data).float().mean() > 0.3


@pytest.mark.parametrize(
    "options", [{"muon_rate": 0.0}, {"muon_decay": -0.1}, {"shift_factor": 0.0}]
)
def test_rates_that_cannot_be_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(CompressionError, match=next(iter(options))):
        replace(MUON, **options)


def test_a_closure_gives_the_gradients_of_the_step() -> None:
    model = residual()
    optimizer = optimizer_of(model, MUON)
    assert isinstance(optimizer, Muon)
    before = state(model)

    def closure() -> float:
        value = model(images(2)).square().sum()
        value.backward()
        return value.item()

    assert optimizer.step(closure) > 0  # type: ignore[operator]
    assert changed(model, before)


def test_shifts_of_normalizations_learn_so_many_times_faster() -> None:
    model = residual()
    recipe = replace(MUON, optimizer="sgd", shift_factor=64)
    plain, faster = (
        optimizer_of(model, replace(recipe, shift_factor=1)),
        optimizer_of(model, recipe),
    )
    assert len(plain.param_groups) == 2
    assert [len(g["params"]) for g in faster.param_groups] == [3, 3, 2]
    assert faster.param_groups[2]["params"] == [model.bn1.bias, model.bn2.bias]
    assert faster.param_groups[2]["lr"] == 64 * MUON.learning_rate
    rates = [g["lr"] for g in optimizer_of(model, replace(recipe, optimizer="muon")).param_groups]
    assert rates == [0.02, 0.02, 64 * 0.02, MUON.muon_rate]
