"""How a network is trained: the recipe, and the learning rates that it means."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch

from compression.checks import is_whole
from compression.errors import CompressionError


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a network is trained; every field is part of the result's fingerprint.

    optimizer     "muon" makes the steps of hidden layers' weights orthogonal, by `muon_rate` and the
                  decoupled `muon_decay`; all else is trained by "sgd", at learning_rate
                  (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/)
    shift_factor  the biases of normalizations learn at so many times learning_rate (Jordan 2024,
                  arXiv:2404.00498, who gives those of batch norm 64)
    warmup        fraction of the training in which "one-cycle" raises the learning rates
    precision     "bfloat16" is autocast, used where the machine computes in it, float32 elsewhere
    coarse_sizes  pixels that images are resized to, one number for each of the first epochs: cheaper,
                  for a convolutional network with a global pool (progressive resizing, fast.ai 2018)
    cutout        side in pixels of the square that each input loses (DeVries and Taylor 2017)
    views         epochs whose batches are drawn anew; later ones see theirs again in turn, so that a
                  teacher answers each batch once (Shen and Xing 2022, arXiv:2112.01528). 0: all epochs
    compiled      torch.compile makes the steps on CUDA: choose a batch size that divides the images,
                  since each shape is compiled once

    CompressionError for a field out of its range.

    >>> Recipe(epochs=2, batch_size=32, learning_rate=0.1).schedule
    'one-cycle'
    """

    epochs: int
    batch_size: int
    learning_rate: float
    optimizer: Literal["sgd", "adam", "muon"] = "sgd"
    schedule: Literal["one-cycle", "cosine", "step", "constant"] = "one-cycle"
    warmup: float = 0.2
    momentum: float = 0.9
    weight_decay: float = 5e-4
    label_smoothing: float = 0.0
    precision: Literal["float32", "bfloat16"] = "float32"
    coarse_sizes: tuple[int, ...] = ()
    seed: int = 0
    cutout: int = 0
    compiled: bool = False
    views: int = 0
    muon_rate: float = 0.1
    muon_decay: float = 0.05
    shift_factor: float = 1.0

    def __post_init__(self) -> None:
        """Refuse a recipe that cannot be followed."""
        for field in ("epochs", "batch_size"):
            value = getattr(self, field)
            if not is_whole(value) or value < 1:
                raise CompressionError(f"recipe: {field} must be at least 1, found {value!r}")
        if not is_whole(self.seed):
            raise CompressionError(f"recipe: seed must be an integer, found {self.seed!r}")
        for field in ("cutout", "views"):
            value = getattr(self, field)
            if not is_whole(value) or value < 0:
                raise CompressionError(f"recipe: {field} must be 0 or more, found {value!r}")
        for field, (fits, wanted) in _NUMBERS.items():
            value = getattr(self, field)
            if not (isinstance(value, int | float) and math.isfinite(value) and fits(value)):
                raise CompressionError(f"recipe: {field} must be {wanted}, found {value!r}")
        sizes = self.coarse_sizes
        if len(sizes) > self.epochs or not all(is_whole(size) and size > 0 for size in sizes):
            raise CompressionError(
                f"recipe: coarse_sizes holds the pixels of at most {self.epochs} leading epochs, "
                f"found {self.coarse_sizes!r}"
            )
        choices = {
            "optimizer": ("sgd", "adam", "muon"),
            "schedule": ("one-cycle", "cosine", "step", "constant"),
            "precision": ("float32", "bfloat16"),
        }
        for field, allowed in choices.items():
            if getattr(self, field) not in allowed:
                raise CompressionError(
                    f"recipe: {field} must be one of {', '.join(allowed)}, "
                    f"found {getattr(self, field)!r}"
                )

    def relative_work(self, epoch: int, size: int) -> float:
        """Return an epoch's work on images of `size` pixels as a fraction of a full one's."""
        coarse = epoch < len(self.coarse_sizes)
        return min(1.0, (self.coarse_sizes[epoch] / size) ** 2) if coarse else 1.0

    def view(self, epoch: int) -> int:
        """Return the epoch whose batches `epoch` sees: itself, or the one that it repeats."""
        return epoch % self.views if self.views else epoch

    @property
    def repeats(self) -> bool:
        """Tell whether a batch is seen twice."""
        return 0 < self.views < self.epochs


_NUMBERS: dict[str, tuple[Callable[[float], bool], str]] = {
    "learning_rate": (lambda x: x > 0, "positive"),
    "warmup": (lambda x: 0 <= x < 1, "a fraction of the training, 0 or more and below 1"),
    "momentum": (lambda x: 0 <= x < 1, "0 or more and below 1"),
    "weight_decay": (lambda x: x >= 0, "0 or more"),
    "label_smoothing": (lambda x: 0 <= x <= 1, "in 0..1"),
    "muon_rate": (lambda x: x > 0, "positive"),
    "muon_decay": (lambda x: x >= 0, "0 or more"),
    "shift_factor": (lambda x: x > 0, "positive"),
}


def seed_of(recipe: Recipe, epoch: int) -> int:
    """Return the seed of an epoch's draws."""
    return recipe.seed * 1_000_003 + epoch


def has_bfloat16(device: torch.device | str) -> bool:
    """Tell whether `device` computes convolutions in bfloat16, rather than emulating them."""
    if torch.device(device).type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return bool(
        capabilities.get("avx512_bf16", torch.cpu._is_avx512_bf16_supported())
        or torch.cpu._is_amx_tile_supported()
    )


def rate_of(recipe: Recipe, progress: float) -> float:
    """Return the learning rate as a fraction of the recipe's; `progress` runs from 0 to 1."""
    match recipe.schedule:
        case "one-cycle" if progress < recipe.warmup:
            return max(progress / recipe.warmup, 0.01)
        case "one-cycle":
            return max((1 - progress) / (1 - recipe.warmup), 0.001)
        case "cosine":
            return (1 + math.cos(math.pi * min(progress, 1.0))) / 2
        case "step":  # a tenth at each third
            return float(0.1 ** int(progress * 3))
        case _:
            return 1.0
