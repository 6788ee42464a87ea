"""A recipe, images and a loss to try training step by step."""

from typing import Any

import torch
from torch.nn import functional as F

from benchmarks.baseline.data import Augment, Normalize
from compression.training import Recipe, Split

PLAIN = Recipe(
    epochs=3, batch_size=24, learning_rate=0.05, label_smoothing=0.1, coarse_sizes=(16,), seed=3
)


def pictures(count: int = 64) -> Split:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8, generator=generator)
    labels = torch.randint(0, 4, (count,), generator=generator)
    return Split(images, labels, Normalize((0.5,) * 3, (0.25,) * 3), Augment(degrees=10))


class Poison:
    """A loss that is NaN in one step of all."""

    def __init__(self, step: int) -> None:
        self.step, self.steps = step, 0

    def __call__(self, logits: torch.Tensor, labels: torch.Tensor, _: Any) -> torch.Tensor:
        self.steps += 1
        value = F.cross_entropy(logits, labels)
        return value * float("nan") if self.steps == self.step else value
