"""The one training loop, which the baseline, fine-tuning and distillation share, and its data."""

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compression.errors import CompressionError
from compression.modes import evaluating

log = logging.getLogger(__name__)

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(logits, labels, inputs) -> scalar loss."""


@dataclass(frozen=True, slots=True)
class Split:
    """Images (N, C, H, W) with labels (N,), and how a batch of them becomes a network's input.

    `prepare` maps stored images to float32 inputs; `augment` is applied before it in training only
    and draws from the generator that it is given.
    """

    images: Tensor
    labels: Tensor
    prepare: Callable[[Tensor], Tensor]
    augment: Callable[[Tensor, torch.Generator], Tensor] | None = None

    def __post_init__(self) -> None:
        """Refuse an empty or inconsistent split."""
        if len(self.images) == 0 or len(self.images) != len(self.labels):
            raise CompressionError(
                f"a split needs as many labels as images and at least one of each, found "
                f"{len(self.images)} images and {len(self.labels)} labels"
            )

    def __len__(self) -> int:
        """Count the images."""
        return len(self.labels)

    def inputs(self, index: slice | Tensor) -> Tensor:
        """Return the prepared batch at `index`, without augmentation."""
        return self.prepare(self.images[index])

    def augmented(self, index: slice | Tensor, generator: torch.Generator) -> Tensor:
        """Return the prepared batch at `index`, augmented where the split knows how."""
        images = self.images[index]
        return self.prepare(images if self.augment is None else self.augment(images, generator))

    def take(self, count: int | None) -> "Split":
        """Return the first `count` images; all of them for None or where there are fewer."""
        return replace(self, images=self.images[:count], labels=self.labels[:count])

    def to(self, device: torch.device | str) -> "Split":
        """Return the split with its tensors on `device`."""
        return replace(self, images=self.images.to(device), labels=self.labels.to(device))


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a network is trained; every field is part of the result's fingerprint.

    `precision` "bfloat16" is autocast, used where the machine computes in it and float32 elsewhere.
    The first epochs train on images resized to `coarse_sizes` pixels, one an epoch: cheaper, for a
    convolutional network with a global pool (progressive resizing, fast.ai 2018).
    """

    epochs: int
    batch_size: int
    learning_rate: float
    optimizer: Literal["sgd", "adam"] = "sgd"
    schedule: Literal["one-cycle", "cosine", "step", "constant"] = "one-cycle"
    warmup: float = 0.2
    momentum: float = 0.9
    weight_decay: float = 5e-4
    label_smoothing: float = 0.0
    precision: Literal["float32", "bfloat16"] = "float32"
    coarse_sizes: tuple[int, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse a recipe that cannot be followed."""
        for field in ("epochs", "batch_size"):
            value = getattr(self, field)
            if not isinstance(value, int) or value < 1:
                raise CompressionError(f"recipe: {field} must be at least 1, found {value!r}")
        if not (math.isfinite(self.learning_rate) and self.learning_rate > 0):
            raise CompressionError(
                f"recipe: learning_rate must be positive, found {self.learning_rate!r}"
            )
        if len(self.coarse_sizes) > self.epochs or min(self.coarse_sizes, default=1) < 1:
            raise CompressionError(
                f"recipe: coarse_sizes holds the pixels of at most {self.epochs} leading epochs, "
                f"found {self.coarse_sizes!r}"
            )
        choices = {
            "optimizer": ("sgd", "adam"),
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


@dataclass(frozen=True, slots=True)
class EpochReport:
    """What one finished epoch tells; `state` is what `fit(resume_from=...)` takes up again."""

    epoch: int
    epochs: int
    mean_loss: float
    seconds: float
    model: nn.Module
    state: Callable[[], dict[str, Any]]


def has_bfloat16(device: torch.device | str) -> bool:
    """Tell whether `device` computes convolutions in bfloat16, rather than emulating them."""
    if torch.device(device).type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return bool(
        capabilities.get("avx512_bf16", torch.cpu._is_avx512_bf16_supported())
        or torch.cpu._is_amx_tile_supported()
    )


def fit(
    model: nn.Module,
    train: Split,
    recipe: Recipe,
    *,
    loss: Loss | None = None,
    after_step: Callable[[], None] | None = None,
    on_epoch: Callable[[EpochReport], None] | None = None,
    resume_from: dict[str, Any] | None = None,
) -> None:
    """Train `model` in place on `train`; the same seed, machine and threads give the same weights.

    `after_step` runs behind every optimizer step, `on_epoch` behind every epoch. A loss that is not
    finite raises CompressionError with the epoch and the learning rate.
    """
    loss = loss or (
        lambda logits, labels, _: F.cross_entropy(
            logits, labels, label_smoothing=recipe.label_smoothing
        )
    )
    steps = math.ceil(len(train) / recipe.batch_size)
    optimizer = _optimizer(model, recipe)
    scheduler = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: _rate(recipe, step / (steps * recipe.epochs))
    )
    first = 0
    if resume_from is not None:
        model.load_state_dict(resume_from["model"])
        optimizer.load_state_dict(resume_from["optimizer"])
        scheduler.load_state_dict(resume_from["scheduler"])
        first = int(resume_from["epoch"]) + 1

    for epoch in range(first, recipe.epochs):
        started = time.perf_counter()
        model.train()
        # Dropout draws from the global generator: seeded an epoch, and given back as it was.
        with torch.random.fork_rng():
            torch.manual_seed(recipe.seed * 1_000_003 + epoch)
            mean_loss = _epoch(model, train, recipe, epoch, loss, optimizer, scheduler, after_step)

        def state(epoch: int = epoch) -> dict[str, Any]:
            return {
                "epoch": epoch,
                "model": model.state_dict(),
                "optimizer": optimizer.state_dict(),
                "scheduler": scheduler.state_dict(),
            }

        if on_epoch is not None:
            seconds = time.perf_counter() - started
            on_epoch(EpochReport(epoch, recipe.epochs, mean_loss, seconds, model, state))
    model.eval()


def _epoch(
    model: nn.Module,
    train: Split,
    recipe: Recipe,
    epoch: int,
    loss: Loss,
    optimizer: torch.optim.Optimizer,
    scheduler: torch.optim.lr_scheduler.LRScheduler,
    after_step: Callable[[], None] | None,
) -> float:
    device = next(model.parameters()).device
    # A generator of its own an epoch: an epoch taken up again after a kill sees the same batches.
    generator = torch.Generator().manual_seed(recipe.seed * 1_000_003 + epoch)
    order = torch.randperm(len(train), generator=generator)
    autocast = recipe.precision == "bfloat16" and has_bfloat16(device)
    total = torch.zeros((), device=device)
    for index in order.split(recipe.batch_size):
        inputs = train.augmented(index.to(train.images.device), generator).to(device)
        if epoch < len(recipe.coarse_sizes):
            size = recipe.coarse_sizes[epoch]
            inputs = F.interpolate(inputs, size=size, mode="bilinear", antialias=True)
        inputs = inputs.contiguous(memory_format=torch.channels_last)
        labels = train.labels[index.to(train.labels.device)].to(device)
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=autocast):
            logits = model(inputs)
        value = loss(logits.float(), labels, inputs)
        if not torch.isfinite(value):
            rate = optimizer.param_groups[0]["lr"]
            raise CompressionError(
                f"training stopped: the loss became {value.item()} in epoch {epoch + 1} of "
                f"{recipe.epochs} at learning rate {rate:.4g}; lower the recipe's learning_rate"
            )
        value.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        scheduler.step()
        if after_step is not None:
            after_step()
        total += value.detach() * len(index)
    return total.item() / len(train)


def _optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """Decay weights only: decaying batch norm and bias costs accuracy (He et al. 2019, 3.1)."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups: list[dict[str, Any]] = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    if recipe.optimizer == "adam":
        return torch.optim.Adam(groups, lr=recipe.learning_rate)
    return torch.optim.SGD(
        groups, lr=recipe.learning_rate, momentum=recipe.momentum, nesterov=recipe.momentum > 0
    )


def _rate(recipe: Recipe, progress: float) -> float:
    """Learning rate as a fraction of the recipe's, `progress` running from 0 to 1."""
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


@torch.no_grad()
def predict(model: nn.Module, split: Split, *, batch_size: int = 250) -> Tensor:
    """Return the logits (N, classes), float32 on the CPU, of the split's images in order.

    The batch size is fixed because it changes the last bits; the model's training flag is restored.
    """
    if batch_size < 1:
        raise CompressionError(f"batch_size must be at least 1, found {batch_size}")
    held = [*model.parameters(), *model.buffers()]
    device = held[0].device if held else torch.device("cpu")
    with evaluating(model):
        return torch.cat(
            [
                model(split.inputs(slice(start, start + batch_size)).to(device)).float().cpu()
                for start in range(0, len(split), batch_size)
            ]
        )


def correct_images(model: nn.Module, split: Split, *, batch_size: int = 250) -> Tensor:
    """Tell for each image (N,), as bool, whether the model's first choice is its label."""
    return predict(model, split, batch_size=batch_size).argmax(dim=1) == split.labels.cpu()
