"""The optimizer that a recipe means for a network."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from compression.errors import CompressionError
from compression.training.muon import Muon, hidden_matrices
from compression.training.recipe import Recipe, has_bfloat16
from compression.training.sharding import is_sharded

NORMALIZATIONS = (
    *(nn.modules.batchnorm._BatchNorm, nn.modules.instancenorm._InstanceNorm),
    *(nn.GroupNorm, nn.LayerNorm),
)


def optimizer_of(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """Return the recipe's optimizer, which decays weights only.

    To decay batch norm and bias costs accuracy (He et al. 2019, arXiv:1812.01187, 3.1).
    CompressionError for Muon of a sharded network.
    """
    if recipe.optimizer == "muon" and is_sharded(model):
        raise CompressionError(
            "muon makes whole matrices orthogonal, of which a sharded network holds parts: take sgd or "
            "adam, or do not shard it"
        )
    hidden = hidden_matrices(model) if recipe.optimizer == "muon" else {}
    shifts = _shifts(model) if recipe.shift_factor != 1 else set()
    trained = [p for p in model.parameters() if p.requires_grad]
    others = [p for p in trained if p not in hidden and p not in shifts]
    rate, momentum = recipe.learning_rate, recipe.momentum
    groups: list[dict[str, Any]] = [
        {"params": [p for p in others if p.ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in others if p.ndim <= 1], "weight_decay": 0.0},
    ]
    if shifts:  # a group more only where it is asked for: older states stay good
        faster = [p for p in trained if p in shifts]
        groups.append({"params": faster, "lr": rate * recipe.shift_factor, "weight_decay": 0.0})
    if recipe.optimizer == "adam":
        return torch.optim.Adam(groups, lr=rate)
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=rate, momentum=momentum, nesterov=momentum > 0)
    groups += _muon_groups({p: hidden[p] for p in trained if p in hidden}, recipe)
    autocast = recipe.precision == "bfloat16" and has_bfloat16(next(model.parameters()).device)
    dtype = torch.bfloat16 if autocast else torch.float32
    return Muon(groups, lr=rate, momentum=momentum, nesterov=momentum > 0, dtype=dtype)


def _shifts(model: nn.Module) -> set[nn.Parameter]:
    """Return the biases of normalizations."""
    norms = [m for m in model.modules() if isinstance(m, NORMALIZATIONS)]
    return {m.bias for m in norms if isinstance(getattr(m, "bias", None), nn.Parameter)}


def _muon_groups(hidden: Mapping[nn.Parameter, int], recipe: Recipe) -> list[dict[str, Any]]:
    """Return a group of Muon's for each number of blocks of weights."""
    options = {
        "lr": recipe.muon_rate,
        "weight_decay": recipe.muon_decay,
        "inertia": recipe.momentum,
        "momentum": 0.0,  # SGD's own, which would be added to the orthogonal steps
        "nesterov": False,
    }
    return [
        {"params": [p for p in hidden if hidden[p] == blocks], "blocks": blocks} | options
        for blocks in sorted(set(hidden.values()))
    ]
