"""The training loop."""

import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compression.errors import CompressionError
from compression.training.batches import batches
from compression.training.recipe import Recipe, has_bfloat16, optimizer_of, rate_of, seed_of
from compression.training.split import Split

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(logits, labels, inputs) -> scalar loss."""

CHECK_EVERY = {"cpu": 1}
"""Steps between looks at the loss, by kind of device: free on a CPU, elsewhere the device waits."""
CHECK_STEPS = 50


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

    On CUDA the draws are the same and sums vary in their last bits. `after_step` runs behind every
    optimizer step, `on_epoch` behind every epoch. A loss that is not finite raises CompressionError
    with the epoch and the learning rate, on CUDA some steps later but before the epoch's report.
    """
    loss = loss or (
        lambda logits, labels, _: F.cross_entropy(
            logits, labels, label_smoothing=recipe.label_smoothing
        )
    )
    device = next(model.parameters()).device
    forward = forward_of(model, recipe, device)
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
        with _seeded(seed_of(recipe, epoch), device):
            data = batches(train, recipe, epoch, device)
            check = _Check(recipe, epoch, steps, device)
            total = _epoch(forward, data, loss, optimizer, scheduler, after_step, check)
            mean_loss = total.item() / len(train)

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
    forward: Callable[[Tensor], Tensor],
    data: Iterable[tuple[Tensor, Tensor]],
    loss: Loss,
    optimizer: torch.optim.Optimizer,
    scheduler: torch.optim.lr_scheduler.LRScheduler,
    after_step: Callable[[], None] | None,
    check: "_Check",
) -> Tensor:
    """Return the sum of the losses, still on the device: within a step nothing waits for it."""
    total = torch.zeros((), device=check.device)
    for inputs, labels in data:
        optimizer.zero_grad(set_to_none=True)
        value = loss(forward(inputs), labels, inputs)
        total += value.detach() * len(labels)
        check(total, optimizer.param_groups[0]["lr"])
        value.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        scheduler.step()
        if after_step is not None:
            after_step()
    return total


class _Check:
    """Stops an epoch whose losses are not finite, looking every so many steps and at the last."""

    def __init__(self, recipe: Recipe, epoch: int, steps: int, device: torch.device) -> None:
        self.where = f"epoch {epoch + 1} of {recipe.epochs}"
        self.steps, self.device, self.step = steps, device, 0
        self.every = CHECK_EVERY.get(device.type, CHECK_STEPS)

    def __call__(self, total: Tensor, rate: float) -> None:
        self.step += 1
        if self.step % self.every and self.step != self.steps:
            return
        if not torch.isfinite(total):  # a sum stays infinite or NaN once one loss was
            raise CompressionError(
                f"training stopped: the loss became {total.item()} in {self.where} at learning rate "
                f"{rate:.4g}; lower the recipe's learning_rate"
            )


def forward_of(
    model: nn.Module, recipe: Recipe, device: torch.device
) -> Callable[[Tensor], Tensor]:
    """Return the model in training: compiled and in bfloat16 where the recipe asks; logits float32.

    What is compiled holds the model's own parameters: the state dict keeps its keys, and evaluation
    of the model itself stays eager.
    """
    compiled = recipe.compiled and device.type == "cuda"
    network: Callable[[Tensor], Tensor] = torch.compile(model, dynamic=False) if compiled else model
    autocast = recipe.precision == "bfloat16" and has_bfloat16(device)

    def forward(inputs: Tensor) -> Tensor:
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=autocast):
            return network(inputs).float()

    return forward


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed the global generators that dropout draws from, and give them back as they were.

    Only the CPU's and the device's: torch.manual_seed would change those of every GPU.
    """
    cuda = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):
        torch.default_generator.manual_seed(seed)
        for card in cuda:
            with torch.cuda.device(card):
                torch.cuda.manual_seed(seed)
        yield
