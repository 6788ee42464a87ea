"""A training that something changes between its epochs."""

from collections.abc import Callable

import torch
from torch import nn

from compression.distillation import HINTON, Distillation, taught
from compression.errors import CompressionError
from compression.layers import copy_model
from compression.training import EpochReport, Labelled, Loss, Recipe, fit

Change = Callable[[nn.Module, float], None]
"""(network, fraction of the training that is done, above 0 and up to 1): changes it in place."""


def train_between(
    model: nn.Module,
    train: Labelled,
    recipe: Recipe,
    change: Change,
    *,
    teacher: nn.Module | None = None,
    distillation: Distillation = HINTON,
    loss: Loss | None = None,
) -> nn.Module:
    """Return a copy trained by `recipe` that `change` writes into after each epoch.

    The optimizer goes on with its momentum: what `change` sets to zero may grow back in the next
    epoch, as in soft filter pruning (He et al. 2018, arXiv:1808.06866), and what the last call leaves
    is returned. `change` works under torch.no_grad, and may leave the network in any mode. A `teacher`
    helps as in `distill`, by the loss `distillation`; `loss` is that of `fit`. CompressionError where
    `change` puts other tensors in the place of parameters, which the optimizer would not train; raises
    what `fit` and `distill` raise.

    >>> from compression import Split
    >>> train = Split(torch.randn(32, 8), torch.arange(32) % 2, prepare=lambda x: x)
    >>> recipe = Recipe(epochs=3, batch_size=16, learning_rate=0.1)
    >>> net = train_between(nn.Linear(8, 2), train, recipe, lambda m, _: m.weight[0].zero_())
    >>> int((net.weight == 0).sum())
    8
    """
    trained = copy_model(model)
    known = dict(trained.named_parameters())

    def on_epoch(report: EpochReport) -> None:
        with torch.no_grad():
            change(trained, (report.epoch + 1) / report.epochs)
        now = dict(trained.named_parameters())
        for name in known.keys() | now.keys():
            if now.get(name) is not known.get(name):
                raise CompressionError(
                    f"{name}: expected the parameter that is being trained, found another one after "
                    f"epoch {report.epoch + 1} of {report.epochs}; write into it, as by .copy_()"
                )

    with taught(trained, teacher, train, recipe, distillation, loss) as goal:
        fit(trained, train, recipe, loss=goal, on_epoch=on_epoch)
    return trained.eval()
