"""Gradual pruning: the weights go a few at a time, while the others train."""

from collections.abc import Callable, Sequence

from torch import nn

from compression.distillation import HINTON, Distillation, taught
from compression.layers import copy_model, record_left_out
from compression.pruning import keep_zeros
from compression.schedules.masks import Scope, check_removal, zero_share, zero_smallest
from compression.schedules.progress import check_count, check_number, count_steps
from compression.training import Labelled, Loss, Recipe, fit
from compression.weights import Weight, unreached_weights, weights


def prune_gradually(
    model: nn.Module,
    train: Labelled,
    recipe: Recipe,
    *,
    amount: float,
    every: int = 10,
    until: float = 0.5,
    scope: Scope = "global",
    teacher: nn.Module | None = None,
    distillation: Distillation = HINTON,
    loss: Loss | None = None,
) -> nn.Module:
    """Return a copy trained by `recipe` while the smallest `amount` of its weights goes to zero.

    Of T = `until` of the training's optimizer steps, step t leaves a fraction of zeros of
    s(t) = amount - (amount - s(0)) (1 - t / T)^3, with the model's own zeros as s(0). What is zero
    stays zero, and after T the rest trains alone. It reaches what prune_l1_unstructured does.

    amount   fraction of the weights that is zero afterwards, 0 <= amount < 1
    every    optimizer steps from one removal to the next; the last one is at T
    until    0 to 1; at 0 all goes before the training, as in prune_l1_global and fine_tune
    scope    "global" ranks the weights of all layers together, and leaves each layer one at least;
             "layer" removes `amount` of each layer
    teacher  helps as in `distill`, by the loss `distillation`; `loss` is that of `fit`

    CompressionError for options out of these ranges, and where no weight of a layer would be left;
    raises what `fit` and `distill` raise. Zhu and Gupta 2017, arXiv:1710.01878, equation 1.

    >>> from compression import Split
    >>> from compression.pruning import sparsity
    >>> train = Split(torch.randn(32, 8), torch.arange(32) % 2, prepare=lambda x: x)
    >>> recipe = Recipe(epochs=4, batch_size=16, learning_rate=0.1)
    >>> sparsity(prune_gradually(nn.Linear(8, 2), train, recipe, amount=0.75, every=2))
    0.75
    """
    check_count("every", every)
    check_number("until", until, lambda x: 0 <= x <= 1, "a fraction of the training, 0 to 1")
    pruned = copy_model(model)
    reached = weights(pruned)
    check_removal(reached, amount, scope)
    with taught(pruned, teacher, train, recipe, distillation, loss) as goal:
        last = round(until * count_steps(pruned, train, recipe))
        after_step = remover(pruned, reached, amount=amount, every=every, last=last, scope=scope)
        fit(pruned, train, recipe, loss=goal, after_step=after_step)
    record_left_out(pruned, unreached_weights(pruned, [weight.tensor for weight in reached]))
    return pruned


def remover(
    model: nn.Module,
    reached: Sequence[Weight],
    *,
    amount: float,
    every: int,
    last: int,
    scope: Scope,
) -> Callable[[], None]:
    """Return what to call after each optimizer step; it removes weights up to step `last`."""
    first, step = zero_share(reached), 0

    def remove(share: float) -> Callable[[], None]:
        zero_smallest(reached, amount=share, scope=scope)
        return keep_zeros(model)

    zero_again = keep_zeros(model) if last else remove(amount)

    def after_step() -> None:
        nonlocal step, zero_again
        step += 1
        zero_again()
        if step <= last and (step % every == 0 or step == last):
            zero_again = remove(cubic_share(first, amount, step / last))

    return after_step


def cubic_share(first: float, amount: float, progress: float) -> float:
    """Return the fraction of zeros at `progress` (0 to 1) on the way from `first` to `amount`."""
    return amount - (amount - first) * (1.0 - progress) ** 3
