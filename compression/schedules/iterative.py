"""Iterative pruning: rounds of removal, each followed by a training of its own."""

from collections.abc import Iterator
from dataclasses import replace

from torch import nn

from compression.distillation import HINTON, Distillation, taught
from compression.layers import copy_model, record_left_out
from compression.pruning import keep_zeros
from compression.schedules.masks import Scope, check_removal, zero_share, zero_smallest
from compression.schedules.progress import check_count
from compression.training import Labelled, Loss, Recipe, fit
from compression.weights import unreached_weights, weights


def prune_iteratively(
    model: nn.Module,
    train: Labelled,
    recipe: Recipe,
    *,
    amount: float,
    rounds: int = 5,
    scope: Scope = "global",
    teacher: nn.Module | None = None,
    distillation: Distillation = HINTON,
    loss: Loss | None = None,
) -> nn.Module:
    """Return a copy whose smallest weights were zeroed in `rounds`, each one followed by training.

    A round removes the same fraction of what is left, so that the last one reaches `amount`. It then
    trains by the whole schedule of `recipe`, from its first learning rate to its last with an
    optimizer of its own (Renda et al. 2020, arXiv:2003.02389), for its share of the recipe's epochs:
    the last rounds have one more where they do not divide. Zeros stay zeros. It reaches what
    prune_l1_unstructured does; one round is prune_l1_global, then fine_tune.

    amount   fraction of the weights that is zero afterwards, 0 <= amount < 1
    rounds   1 to the recipe's epochs
    scope    "global" ranks the weights of all layers together, and leaves each layer one at least;
             "layer" removes the same fraction of each layer
    teacher  helps as in `distill`, by the loss `distillation`; `loss` is that of `fit`

    CompressionError for options out of these ranges, and where no weight of a layer would be left;
    raises what `fit` and `distill` raise. Han et al. 2015, arXiv:1506.02626; the equal fractions are
    those of Frankle and Carbin 2019, arXiv:1803.03635.

    >>> from compression import Split
    >>> from compression.pruning import sparsity
    >>> train = Split(torch.randn(32, 8), torch.arange(32) % 2, prepare=lambda x: x)
    >>> recipe = Recipe(epochs=4, batch_size=16, learning_rate=0.1)
    >>> sparsity(prune_iteratively(nn.Linear(8, 2), train, recipe, amount=0.75, rounds=2))
    0.75
    """
    check_count("rounds", rounds, recipe.epochs, "the recipe's epochs")
    pruned = copy_model(model)
    reached = weights(pruned)
    check_removal(reached, amount, scope)
    shares = round_shares(zero_share(reached), amount, rounds)
    with taught(pruned, teacher, train, recipe, distillation, loss) as goal:
        for share, part in zip(shares, round_recipes(recipe, rounds), strict=True):
            zero_smallest(reached, amount=share, scope=scope)
            fit(pruned, train, part, loss=goal, after_step=keep_zeros(pruned))
    record_left_out(pruned, unreached_weights(pruned, [weight.tensor for weight in reached]))
    return pruned


def round_shares(first: float, amount: float, rounds: int) -> list[float]:
    """Return the fraction of zeros after each round, from `first`; the last is `amount` exactly."""
    if amount <= first:
        return [amount] * rounds
    left = (1 - amount) / (1 - first)
    return [1 - (1 - first) * left ** (i / rounds) for i in range(1, rounds)] + [amount]


def round_recipes(recipe: Recipe, rounds: int) -> Iterator[Recipe]:
    """Yield each round's recipe; their epochs together are the recipe's, with draws of their own."""
    each, more = divmod(recipe.epochs, rounds)
    start = 0
    for i in range(rounds):
        epochs = each + (i >= rounds - more)
        sizes = recipe.coarse_sizes[start : start + epochs]
        yield replace(recipe, epochs=epochs, coarse_sizes=sizes, seed=recipe.seed + _NEXT_ROUND * i)
        start += epochs


_NEXT_ROUND = 7_919
"""Between the seeds of rounds: far from what people number their seeds by."""
