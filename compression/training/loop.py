"""The training loop."""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compression.errors import CompressionError, UnsupportedTypeError
from compression.training.batches import Feed, batches
from compression.training.checks import (
    check_labels,
    check_logits,
    describe,
    named_errors,
    training_device,
)
from compression.training.probe import Trial
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


@torch.enable_grad()
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

    loss         (logits, labels, inputs) -> scalar; cross-entropy of logits (N, classes, ...) and
                 labels (N, ...) where it is None
    after_step   runs after every optimizer step
    on_epoch     runs after every epoch
    resume_from  what the state() of an EpochReport gave, to go on after its epoch

    On CUDA the draws are the same, and sums vary in their last bits. Images lie channels last where
    the network takes them so, and a last batch of one image joins the one before it where the network
    cannot train on it alone (`feed_of`). Raises CompressionError that names the place where network,
    batch and loss do not go together. It raises one with the epoch and the learning rate for a loss
    that is not finite: on CUDA some steps later, but before the epoch's report.

    >>> x = torch.randn(64, 4)
    >>> train = Split(x, (x[:, 0] > 0).long(), prepare=lambda x: x)
    >>> losses = []
    >>> recipe = Recipe(epochs=5, batch_size=16, learning_rate=0.5)
    >>> fit(nn.Linear(4, 2), train, recipe, on_epoch=lambda report: losses.append(report.mean_loss))
    >>> losses[-1] < losses[0]
    True
    """
    device = training_device(model)
    feed, shape = Trial(model, train, recipe, device, forward_of).feed()
    if loss is None:
        check_labels(train.labels, shape)
        loss = _cross_entropy(recipe)
    forward = forward_of(model, recipe, device)
    steps = feed.steps(len(train), recipe.batch_size)
    optimizer = optimizer_of(model, recipe)
    scheduler = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: rate_of(recipe, step / (steps * recipe.epochs))
    )
    first = 0
    if resume_from is not None:
        first = _resume(resume_from, model, optimizer, scheduler)

    for epoch in range(first, recipe.epochs):
        started = time.perf_counter()
        model.train()
        with _seed_generators(seed_of(recipe, epoch), device):
            data = batches(train, recipe, epoch, device, feed)
            check = _Check(recipe, epoch, steps, device)
            total = _epoch(model, forward, data, loss, optimizer, scheduler, after_step, check)
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


def feed_of(model: nn.Module, train: Split, recipe: Recipe) -> Feed:
    """Return how `fit` would feed `model`, which does not change.

    Raises CompressionError with the network's own error where it cannot train by `recipe`.
    """
    with torch.enable_grad():
        return Trial(model, train, recipe, training_device(model), forward_of).feed()[0]


def _cross_entropy(recipe: Recipe) -> Loss:
    smoothing = recipe.label_smoothing

    def loss(logits: Tensor, labels: Tensor, _: Tensor) -> Tensor:
        labels = labels if labels.is_floating_point() else labels.long()  # of any integers
        return F.cross_entropy(logits, labels, label_smoothing=smoothing)

    return loss


def _resume(
    state: dict[str, Any],
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    scheduler: torch.optim.lr_scheduler.LRScheduler,
) -> int:
    """Put everything as `state` holds it, and return the epoch to go on with."""
    try:
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        scheduler.load_state_dict(state["scheduler"])
        return int(state["epoch"]) + 1
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        raise CompressionError(
            f"resume_from is no state of this network and recipe ({type(error).__name__}: {error}); "
            "pass what an EpochReport's state() gave, or nothing to train from the start"
        ) from error


def _epoch(
    model: nn.Module,
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
        what = f"{check.where}: inputs {describe(inputs)}, labels {describe(labels)}"
        with named_errors(model, what):
            value = _scalar(loss(forward(inputs), labels, inputs))
        total += value.detach() * len(labels)
        check(total, optimizer.param_groups[0]["lr"])
        with named_errors(model, what):
            value.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        scheduler.step()
        if after_step is not None:
            after_step()
    return total


def _scalar(value: Any) -> Tensor:
    """Return the loss where a step can be taken by it."""
    if not isinstance(value, Tensor) or value.ndim or not value.is_floating_point():
        found = describe(value) if isinstance(value, Tensor) else type(value).__name__
        raise UnsupportedTypeError(
            f"the loss must be one number in a tensor of shape (), found {found}; take its mean"
        )
    if not value.requires_grad:
        raise CompressionError(
            "the loss does not depend on any parameter that is trained: was it detached, or is all "
            "that it comes from frozen?"
        )
    return value


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
    model: Callable[[Tensor], Any], recipe: Recipe, device: torch.device
) -> Callable[[Tensor], Tensor]:
    """Return the model in training: compiled and in bfloat16 where the recipe asks; logits float32.

    What is compiled holds the model's own parameters: the state dict keeps its keys, and evaluation
    of the model itself stays eager.
    """
    compiled = recipe.compiled and device.type == "cuda"
    network: Callable[[Tensor], Any] = torch.compile(model, dynamic=False) if compiled else model
    autocast = recipe.precision == "bfloat16" and has_bfloat16(device)

    def forward(inputs: Tensor) -> Tensor:
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=autocast):
            return check_logits(model, network(inputs)).float()

    return forward


@contextmanager
def _seed_generators(seed: int, device: torch.device) -> Iterator[None]:
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
