"""The steps of a training: one epoch, what stops it, and what a training goes on from."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from compression.errors import CompressionError, UnsupportedTypeError
from compression.training.checks import describe, describe_any, named_errors
from compression.training.norms import Synchronized
from compression.training.ranks import Ranks, Share
from compression.training.recipe import Recipe
from compression.training.sharding import divided, is_sharded, parts_of, read_parts

Loss = Callable[[Any, Any, Tensor], Tensor]
"""(logits, labels, inputs) -> scalar loss; of a network of several outputs, all of them for logits.

Labels are a tensor, or what structure of them a Dataset gives."""

CHECK_EVERY = {"cpu": 1}
"""Steps between looks at the loss, by kind of device: free on a CPU, elsewhere the device waits."""
CHECK_STEPS = 50


class Check:
    """Stops an epoch whose losses are not finite, looking every so many steps and at the last."""

    def __init__(
        self, recipe: Recipe, epoch: int, steps: int, device: torch.device, ranks: Ranks
    ) -> None:
        """Watch `epoch`, which has so many `steps`, on `device`."""
        self.where = f"epoch {epoch + 1} of {recipe.epochs}"
        self.steps, self.device, self.ranks, self.step = steps, device, ranks, 0
        self.every = CHECK_EVERY.get(device.type, CHECK_STEPS)

    def __call__(self, total: Tensor, rate: float) -> None:
        """Look at the sum of the losses so far, where it is time."""
        self.step += 1
        if self.step % self.every and self.step != self.steps:
            return
        total = self.ranks.sum(total)  # so that all stop, or none
        if not torch.isfinite(total):  # a sum stays infinite or NaN once one loss was
            raise CompressionError(
                f"training stopped: the loss became {total.item()} in {self.where} at learning rate "
                f"{rate:.4g}; lower the recipe's learning_rate"
            )


@dataclass(frozen=True, slots=True)
class Run:
    """What the epochs of a training share; `forward` is the call of `model` in training."""

    model: nn.Module
    forward: Callable[[Tensor], Any]
    loss: Loss
    optimizer: torch.optim.Optimizer
    scheduler: torch.optim.lr_scheduler.LRScheduler
    after_step: Callable[[], None] | None
    synchronized: Synchronized

    def epoch(
        self, data: Iterable[tuple[Tensor, Any]], shares: Sequence[Share], check: Check
    ) -> Tensor:
        """Return the sum of the losses, still on the device: within a step nothing waits for it.

        `data` are this process's parts of the batches, and `shares` what each of them counts for.
        """
        self.model.train()
        total = torch.zeros((), device=check.device)
        for (inputs, labels), share in zip(data, shares, strict=True):
            self.optimizer.zero_grad(set_to_none=True)
            self.synchronized.weight = share.images / len(inputs)
            what = f"{check.where}: inputs {describe(inputs)}, labels {describe_any(labels)}"
            with named_errors(self.model, what):
                value = scalar(self.loss(self.forward(inputs), labels, inputs))
            total += value.detach() * share.images
            check(total, self.optimizer.param_groups[0]["lr"])
            with named_errors(self.model, what):
                value = value if share.factor == 1 else value * share.factor
                value.backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()
            self.scheduler.step()
            if self.after_step is not None:
                self.after_step()
        return total

    def state(self, epoch: int) -> dict[str, Any]:
        """Return what `resume` takes to go on after `epoch`: the part of it that is held here."""
        if is_sharded(self.model):
            return self._by_name(epoch)
        return {
            "epoch": epoch,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
        }

    def _by_name(self, epoch: int) -> dict[str, Any]:
        parts = parts_of(self.model, self.optimizer)
        return {"epoch": epoch, **parts, "scheduler": self.scheduler.state_dict()}

    def resume(self, given: dict[str, Any] | Path) -> int:
        """Put everything as a state holds it, or the folder of one; return the epoch to go on with."""
        try:
            state = self._read(given) if isinstance(given, Path) else given
            if is_sharded(self.model):
                state = divided(state, self.model, self.optimizer)
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.scheduler.load_state_dict(state["scheduler"])
            return int(state["epoch"]) + 1
        except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
            raise CompressionError(
                f"resume_from is no state of this network and recipe ({type(error).__name__}: "
                f"{error}); pass what an EpochReport's state() gave, or nothing to train from the "
                "start"
            ) from error

    def _read(self, folder: Path) -> dict[str, Any]:
        self.optimizer.zero_grad()  # torch gives a state to no optimizer of parameters with gradients
        state = self._by_name(0)
        read_parts(folder, state)
        return state


def scalar(value: Any) -> Tensor:
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
