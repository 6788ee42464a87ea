"""The losses of distillation that know logits alone, each with its reference."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from compression.distillation import (
    Decoupled,
    Dist,
    Hinton,
    Standardized,
    correlation_distance,
    decoupled_divergence,
    distillation_loss,
    standardized_divergence,
)
from tests.support import distillation_references as right

Soft = Callable[[Tensor, Tensor, Tensor], Tensor]
OPTIONS = {"alpha": 0.7, "beta": 3.0}, {"beta": 2.0, "gamma": 0.5}


def hinton(s: Tensor, t: Tensor, labels: Tensor, temperature: float) -> Tensor:
    return distillation_loss(s, t, labels, temperature=temperature, alpha=1.0) / 2


SOFT: dict[str, tuple[Callable[..., Tensor], Callable[..., float]]] = {
    "hinton": (hinton, right.hinton),
    "standardized": (standardized_divergence, right.standardized),
    "decoupled": (partial(decoupled_divergence, **OPTIONS[0]), partial(right.decoupled, **OPTIONS[0])),
    "dist": (partial(correlation_distance, **OPTIONS[1]), partial(right.dist, **OPTIONS[1])),
}  # fmt: skip
CHOICES = {
    "hinton": Hinton(temperature=2.0, alpha=0.5),
    "standardized": Standardized(temperature=2.0, weight=9.0),
    "decoupled": Decoupled(temperature=2.0, **OPTIONS[0]),
    "dist": Dist(temperature=2.0, **OPTIONS[1]),
}


def soft(name: str, temperature: float = 2.0) -> Soft:
    return partial(SOFT[name][0], temperature=temperature)


def drawn(*shape: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    made = torch.Generator().manual_seed(seed)
    student, teacher = 3 * torch.randn(2, *shape, generator=made)
    labels = torch.randint(0, shape[1], (shape[0], *shape[2:]), generator=made)
    return student, teacher, labels
