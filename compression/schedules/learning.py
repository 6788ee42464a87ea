"""The loop of learning-compression: learning steps, each with a compression step behind it.

A learning step is so many of the training's optimizer steps, and all of them are one training: its
learning rate decays over the whole, as from step to step in the papers, and momentum goes on.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from compression.schedules.multipliers import Compress, Multipliers
from compression.schedules.progress import check_count, check_number, count_steps
from compression.training import Labelled, Loss, Recipe, fit

FIRST_PULL = 0.1
"""The exponent by which the first learning step brings weights towards theta where no mu is given."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How the pull grows: from `mu` by `growth` in each of `steps`, which end at `until`."""

    steps: int
    mu: float | None
    growth: float
    until: float

    def __post_init__(self) -> None:
        """Refuse what is out of range."""
        check_count("steps", self.steps)
        if self.mu is not None:
            check_number("mu", self.mu, lambda x: x > 0, "above 0 and finite, or None")
        check_number("growth", self.growth, lambda x: x >= 1, "1 or more and finite")
        check_number("until", self.until, lambda x: 0 < x <= 1, "a fraction above 0 and up to 1")

    def turns(self, total: int) -> list[int]:
        """Return the optimizer steps, of `total`, that a compression step follows."""
        last = round(self.until * total)
        check_count("steps", self.steps, last, "the optimizer steps that they divide")
        return [i * last // self.steps for i in range(1, self.steps + 1)]

    def first(self, recipe: Recipe, last: int) -> float:
        """Return the first mu, where the last compression step follows optimizer step `last`.

        A pull of mu makes gradient descent with momentum shrink a distance by the factor
        exp(-rate mu steps / (1 - momentum)).
        """
        if self.mu is not None:
            return self.mu
        momentum = 0.9 if recipe.optimizer == "adam" else recipe.momentum
        return FIRST_PULL * (1 - momentum) * self.steps / (recipe.learning_rate * last)


def learn(
    model: nn.Module,
    train: Labelled,
    recipe: Recipe,
    loss: Loss | None,
    weights: Sequence[Tensor],
    compress: Compress,
    pace: Pace,
    keep: Callable[[nn.Module], Callable[[], None]],
) -> None:
    """Train `model` in place by the whole recipe; from the last turn `weights` are what is held.

    From there on `keep` of the model gives what keeps their form after each optimizer step. mu stays
    at 1 / learning_rate at most: beyond, a step would overshoot theta. The papers bound the rate by
    1 / mu instead.
    """
    turns, done = pace.turns(count_steps(model, train, recipe)), 0
    most, mu = 1 / recipe.learning_rate, pace.first(recipe, turns[-1])
    coupled = Multipliers(weights, compress, mu=mu, growth=pace.growth, most=most)
    form: Callable[[], None] | None = None

    def after_step() -> None:
        nonlocal done, form
        done += 1
        if form is not None:
            form()
        elif done in turns:
            coupled.advance()
        if done == turns[-1]:
            coupled.settle()
            form = keep(model)

    def penalty() -> Tensor:
        return coupled.penalty() if form is None else torch.zeros(())

    fit(model, train, recipe, loss=loss, penalty=penalty, after_step=after_step)
