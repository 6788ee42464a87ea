"""Soft filter pruning: filters are zeroed after each epoch, may grow back, and go at the end."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from compression.channels import Choice, Criterion, check_fraction, choose, reach, scores_of
from compression.schedules import train_between
from compression.training import Recipe, Split


def remove_channels_softly(
    model: nn.Module,
    example: Any,
    train: Split,
    recipe: Recipe,
    *,
    macs: float,
    criterion: Criterion = "l2",
    multiple_of: int = 16,
    at_least: float = 0.1,
    seed: int = 0,
    teacher: nn.Module | None = None,
    temperature: float = 4.0,
    alpha: float = 0.5,
) -> nn.Module:
    """Return a copy trained by `recipe` while channels fade, and without them at the end.

    After each epoch the filters are zeroed that `remove_channels` would remove from the network as it
    is then; in the next one they train again, so that a choice can be taken back. After the last
    epoch the channels go, until `macs`, a fraction of the network's own multiply-accumulates for
    inputs like `example`, is left; recalibrate_batch_norm and fine_tune repair that.

    criterion    a norm or a distance of filters, as in remove_channels; "taylor" is none
    multiple_of, at_least, seed  as in remove_channels
    teacher      helps as in `distill`, by `temperature` and its share `alpha`

    Raises what `remove_channels`, `fit` and `distill` raise. He et al. 2018, arXiv:1808.06866.

    >>> train = Split(torch.randn(32, 8), torch.arange(32) % 2, prepare=lambda x: x)
    >>> net = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 2))
    >>> recipe = Recipe(epochs=2, batch_size=16, learning_rate=0.1)
    >>> remove_channels_softly(net, torch.randn(1, 8), train, recipe, macs=0.5)[0]
    Linear(in_features=8, out_features=32, bias=True)
    """
    check_fraction("macs", macs)
    start = choose(
        model,
        example,
        criterion=criterion,
        multiple_of=multiple_of,
        at_least=at_least,
        seed=seed,
    )
    cost, total = start.cost_in_macs()

    def gone_from(network: nn.Module) -> tuple[Choice, Tensor]:
        scores = scores_of(network, start.channels, start.widths, criterion, seed=seed)
        now = replace(start, model=network, scores=scores)
        return now, reach(now, cost, "macs", macs, total)

    gone_from(model)  # a budget out of reach is said before the training
    trained = train_between(
        model,
        train,
        recipe,
        lambda network, _: zero_filters(*gone_from(network)),
        teacher=teacher,
        temperature=temperature,
        alpha=alpha,
    )
    choice, gone = gone_from(trained)
    return choice.cut(gone)


@torch.no_grad()
def zero_filters(choice: Choice, gone: Tensor) -> None:
    """Zero, in place, the filters that make channels which are `gone`; their norms stay."""
    channels = choice.channels
    for place, axis in channels.made:
        weight = getattr(choice.model.get_submodule(place.module), place.attribute)
        index = gone[channels.labels.roots(channels.owned[place, axis])].nonzero().view(-1)
        weight.index_fill_(axis, index.to(weight.device), 0)
