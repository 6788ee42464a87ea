"""The training loop."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compression.errors import CompressionError
from compression.training.recipe import Recipe, has_bfloat16, optimizer_of, rate_of
from compression.training.split import Split

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(logits, labels, inputs) -> scalar loss."""


@dataclass(frozen=True, slots=True)
class EpochReport:
    """What one finished epoch tells; `state` is what `fit(resume_from=...)` takes up again."""

    epoch: int
    epochs: int
    mean_loss: float
    seconds: float
    model: nn.Module
    state: Callable[[], dict[str, Any]]


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
    optimizer = optimizer_of(model, recipe)
    scheduler = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: rate_of(recipe, step / (steps * recipe.epochs))
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
