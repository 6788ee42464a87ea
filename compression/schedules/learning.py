"""The loop of learning-compression: learning steps, each with a compression step behind it.

A learning step is so many of the training's optimizer steps, and all of them are one training: its
learning rate decays over the whole, as from step to step in the papers, and momentum goes on.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from compression.schedules.multipliers import Compress, Multipliers
from compression.schedules.progress import check_count, check_number, count_steps
from compression.training import Loss, Recipe, Split, fit


@dataclass(frozen=True, slots=True)
class Pace:
    """How the pull grows: from `mu`, or what the recipe asks for, by `growth` in each of `steps`."""

    steps: int
    mu: float | None
    growth: float

    def __post_init__(self) -> None:
        """Refuse what is out of range."""
        check_count("steps", self.steps)
        if self.mu is not None:
            check_number("mu", self.mu, lambda x: x > 0, "above 0 and finite, or None")
        check_number("growth", self.growth, lambda x: x >= 1, "1 or more and finite")

    def first(self, recipe: Recipe, total: int) -> float:
        """Return the first mu: one at which weights move towards theta in one learning step.

        A pull of mu makes gradient descent with momentum shrink a distance by the factor
        exp(-rate mu steps / (1 - momentum)): the default's exponent is 1 at the recipe's rate.
        """
        if self.mu is not None:
            return self.mu
        momentum = recipe.momentum if recipe.optimizer == "sgd" else 0.9
        return (1 - momentum) * self.steps / (recipe.learning_rate * total)


def learn(
    model: nn.Module,
    train: Split,
    recipe: Recipe,
    loss: Loss | None,
    weights: Sequence[Tensor],
    compress: Compress,
    pace: Pace,
    zero_again: Callable[[], None] = lambda: None,
) -> None:
    """Train `model` in place by the whole recipe; `weights` are what `compress` gives at the end.

    mu stays at 1 / learning_rate at most: beyond, a step would overshoot theta. The papers bound the
    rate by 1 / mu instead.
    """
    total = count_steps(model, train, recipe)
    check_count("steps", pace.steps, total, "the training's optimizer steps")
    turns, done = {i * total // pace.steps for i in range(1, pace.steps + 1)}, 0
    most, mu = 1 / recipe.learning_rate, pace.first(recipe, total)
    coupled = Multipliers(weights, compress, mu=mu, growth=pace.growth, most=most)

    def after_step() -> None:
        nonlocal done
        done += 1
        zero_again()
        if done in turns:
            coupled.advance()

    fit(model, train, recipe, loss=loss, penalty=coupled.penalty, after_step=after_step)
    coupled.settle()
