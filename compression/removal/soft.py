"""Soft filter pruning: channels are zeroed after each epoch, may grow back, and go at the end."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from compression.channels import Choice, Criterion, check_fraction, choose, reach, scores_of
from compression.distillation import HINTON, Distillation
from compression.errors import CompressionError
from compression.layers import copy_model
from compression.narrow import BATCH_NORMS
from compression.schedules import train_between
from compression.training import Labelled, Loss, Recipe


def remove_channels_softly(
    model: nn.Module,
    example: Any,
    train: Labelled,
    recipe: Recipe,
    *,
    macs: float,
    criterion: Criterion = "l2",
    multiple_of: int = 16,
    at_least: float = 0.1,
    seed: int = 0,
    teacher: nn.Module | None = None,
    distillation: Distillation = HINTON,
    loss: Loss | None = None,
) -> nn.Module:
    """Return a copy trained by `recipe` while channels fade, and without them at the end.

    After each epoch the channels are zeroed that `remove_channels` would remove from the network as it
    is then; in the next one they train again, so that a choice can be taken back. After the last
    epoch they go, and `macs` is left, a fraction of the network's own multiply-accumulates for inputs
    like `example`; recalibrate_batch_norm and fine_tune repair that. Where batch norms follow the
    filters, their scales and shifts are zeroed, and count in the criterion: under a norm a filter of
    zeros would come back at once, as large as chance has it.

    criterion    a norm or a distance of filters, as in remove_channels; "taylor" is none
    multiple_of, at_least, seed  as in remove_channels
    teacher      helps as in `distill`, by the loss `distillation`; `loss` is that of `fit`

    Raises what `remove_channels`, `fit` and `distill` raise. He et al. 2018, arXiv:1808.06866.

    >>> from compression import Split
    >>> train = Split(torch.randn(32, 8), torch.arange(32) % 2, prepare=lambda x: x)
    >>> net = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 2))
    >>> recipe = Recipe(epochs=2, batch_size=16, learning_rate=0.1)
    >>> remove_channels_softly(net, torch.randn(1, 8), train, recipe, macs=0.5)[0]
    Linear(in_features=8, out_features=32, bias=True)
    """
    check_fraction("macs", macs)
    if criterion == "taylor":
        raise CompressionError(
            'criterion "taylor" looks at gradients of batches, and filters fade by their norms: take '
            '"l1", "l2", "fpgm" or "batch-norm", or remove_channels(criterion="taylor", batches=...)'
        )
    start = choose(
        model,
        example,
        criterion=criterion,
        multiple_of=multiple_of,
        at_least=at_least,
        seed=seed,
    )
    cost, total = start.cost_in_macs()
    reach(start, cost, "macs", macs, total)  # one out of reach is said before the training
    gone = torch.zeros(len(start.channels.labels), dtype=torch.bool)

    def fade(network: nn.Module, _: float) -> None:
        scaled = with_norms_in_filters(replace(start, model=network))
        scores = scores_of(scaled, start.channels, start.widths, criterion, seed=seed)
        now = replace(start, model=network, scores=scores)
        gone.copy_(reach(now, cost, "macs", macs, total))
        zero_channels(now, gone)

    trained = train_between(
        model, train, recipe, fade, teacher=teacher, distillation=distillation, loss=loss
    )
    return replace(start, model=trained).cut(gone)


@torch.no_grad()
def zero_channels(choice: Choice, gone: Tensor) -> None:
    """Zero, in place, the norms of channels that are `gone`, and the filters of those without one."""
    channels = choice.channels
    normed = torch.zeros_like(gone)
    for _, tensor, roots in _norms(choice):
        tensor[gone[roots].to(tensor.device)] = 0
        normed[roots] = True
    for place, axis in channels.made:
        weight = getattr(choice.model.get_submodule(place.module), place.attribute)
        roots = channels.labels.roots(channels.owned[place, axis])
        index = (gone & ~normed)[roots].nonzero().view(-1)
        weight.index_fill_(axis, index.to(weight.device), 0)


@torch.no_grad()
def with_norms_in_filters(choice: Choice) -> nn.Module:
    """Return a copy whose filters are multiplied by the mean scale of their channels' norms."""
    channels, scaled = choice.channels, copy_model(choice.model)
    total, count = (torch.zeros(len(channels.labels), dtype=torch.float64) for _ in range(2))
    for attribute, scale, roots in _norms(choice):
        if attribute == "weight":
            total.scatter_add_(0, roots, scale.abs().double().cpu())
            count.scatter_add_(0, roots, torch.ones_like(roots, dtype=torch.float64))
    factor = torch.where(count > 0, total / count.clamp_min(1), 1.0)
    for place, axis in channels.made:
        weight = getattr(scaled.get_submodule(place.module), place.attribute)
        rows = factor[channels.labels.roots(channels.owned[place, axis])].to(weight)
        weight.mul_(rows.view([-1 if i == axis else 1 for i in range(weight.ndim)]))
    return scaled


def _norms(choice: Choice) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Yield the scales and shifts of batch norms by their attribute, and their channels' roots."""
    for (place, _), labels in choice.channels.owned.items():
        norm = choice.model.get_submodule(place.module)
        if isinstance(norm, BATCH_NORMS) and place.attribute in ("weight", "bias"):
            tensor = getattr(norm, place.attribute)
            yield place.attribute, tensor, choice.channels.labels.roots(labels)
