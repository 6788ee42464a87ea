"""How much a unit is worth: criteria, each one number per unit, and what makes widths comparable."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from compression.channels.units import Width
from compression.channels.walk import Channels, Place
from compression.errors import CompressionError
from compression.layers import copy_model, failing_module, same_memory
from compression.modes import evaluating
from compression.narrow import BATCH_NORMS
from compression.training import Labelled, Loss, loss_of, pairs_of

Criterion = Literal["l1", "l2", "fpgm", "batch-norm", "taylor", "random"]
CRITERIA = get_args(Criterion)
Measure = Callable[[Place, Tensor], Tensor]
"""Gives each number of a tensor its part of the score."""


def scores_of(
    model: nn.Module,
    channels: Channels,
    widths: Sequence[Width],
    criterion: Criterion,
    *,
    batches: Iterable[Any] | Labelled | None = None,
    seed: int = 0,
    loss: Loss | None = None,
) -> Tensor:
    """Return the score of each unit by its root label, comparable between widths.

    - "l1", "l2": the sum of |w| or w^2 of its filters (Li et al. 2017, arXiv:1608.08710)
    - "fpgm": the distances of its filters to the layer's others (He et al. 2019, arXiv:1811.00250)
    - "batch-norm": the scales |gamma| of its batch norms (Liu et al. 2017, arXiv:1708.06519)
    - "taylor": the sum of (w g)^2 over all its weights, g the gradient of the `loss`, that of `fit`,
      of `batches` of (inputs, labels) (Molchanov et al. 2019, arXiv:1906.10771)
    - "random": numbers by `seed`, the control

    A score but Taylor's is divided by the sum of those that are as large or larger in its width
    (LAMP, Lee et al. 2021, arXiv:2010.07611), so that the last units of a width are worth most.
    """
    if criterion == "random":
        generator = torch.Generator().manual_seed(seed)
        raw = torch.rand(len(channels.labels), generator=generator, dtype=torch.float64)
        return _lamp(raw, widths)
    if criterion == "taylor":
        return _taylor(model, channels, batches, loss)
    if criterion == "fpgm":
        return _lamp(_distances(model, channels), widths)
    if criterion == "batch-norm":
        return _norm_scales(model, channels, widths)
    power = 1 if criterion == "l1" else 2
    made = channels.made
    return _lamp(_summed(model, channels, made, lambda _, w: w.abs().pow(power)), widths)


def _summed(
    model: nn.Module, channels: Channels, keys: Iterable[tuple[Place, int]], measure: Measure
) -> Tensor:
    """Add up what each number of the tensors counts, by the unit that it is of."""
    scores = torch.zeros(len(channels.labels), dtype=torch.float64)
    for place, axis in _once(model, keys):
        tensor = getattr(model.get_submodule(place.module), place.attribute).detach()
        rows = measure(place, tensor).double().movedim(axis, 0)
        parts = rows.reshape(len(rows), -1).sum(1)
        roots = channels.labels.roots(channels.owned[place, axis])
        scores.scatter_add_(0, roots, parts.cpu())
    return scores


def _once(model: nn.Module, keys: Iterable[tuple[Place, int]]) -> list[tuple[Place, int]]:
    """Return the places of tensors, a tied one once."""
    first: dict[tuple[object, int], Place] = {}
    for place, axis in keys:
        tensor = getattr(model.get_submodule(place.module), place.attribute)
        first.setdefault((same_memory(tensor), axis), place)
    return sorted((place, axis) for (_, axis), place in first.items())


def _lamp(raw: Tensor, widths: Sequence[Width]) -> Tensor:
    scores = torch.zeros_like(raw)
    for width in widths:
        order = width.units[raw[width.units].argsort(stable=True)]
        values = raw[order]
        left = values.flip(0).cumsum(0).flip(0)
        scores[order] = values / left.clamp_min(torch.finfo(raw.dtype).tiny)
    return scores


def _distances(model: nn.Module, channels: Channels) -> Tensor:
    """Return the sum of each filter's distances to all of its layer."""

    def measure(place: Place, tensor: Tensor) -> Tensor:
        (axis,) = (a for p, a in channels.made if p == place)
        rows = tensor.movedim(axis, 0)
        flat = rows.flatten(1).double()
        apart = torch.cdist(flat, flat).sum(1)
        return apart.view(-1, *[1] * (rows.ndim - 1)).movedim(0, axis)

    return _summed(model, channels, channels.made, measure)


def _norm_scales(model: nn.Module, channels: Channels, widths: Sequence[Width]) -> Tensor:
    keys = [
        (place, axis)
        for place, axis in channels.owned
        if place.attribute == "weight"
        and isinstance(module := model.get_submodule(place.module), BATCH_NORMS)
        and module.weight is not None
    ]
    if not keys:
        raise CompressionError(
            'criterion "batch-norm" needs batch norms with scales after the layers whose channels may '
            'go, found none; choose "l2"'
        )
    scores = _lamp(_summed(model, channels, keys, lambda _, scale: scale.abs()), widths)
    without = torch.ones(len(scores), dtype=torch.bool)
    for key in keys:
        without[channels.labels.roots(channels.owned[key])] = False
    scores[without] = 1.0  # the most there is: no scale tells what they are worth
    return scores


def _taylor(
    model: nn.Module,
    channels: Channels,
    batches: Iterable[Any] | Labelled | None,
    loss: Loss | None,
) -> Tensor:
    if batches is None:
        raise CompressionError(
            'criterion "taylor" looks at gradients: pass batches=[(inputs, labels), ...]'
        )
    network = copy_model(model)
    network.requires_grad_(True)
    with evaluating(network), torch.enable_grad():
        for number, batch in enumerate(pairs_of(batches), 1):
            _backward(network, batch, number, loss)
    keys = [
        (place, axis)
        for place, axis in channels.owned
        if getattr(network.get_submodule(place.module), place.attribute).grad is not None
    ]
    if not keys:
        raise CompressionError('criterion "taylor": batches held no (inputs, labels)')

    def measure(place: Place, tensor: Tensor) -> Tensor:
        grad = getattr(network.get_submodule(place.module), place.attribute).grad
        return (tensor * grad).pow(2)

    scores = _summed(model, channels, keys, measure)
    if not scores.isfinite().all():
        raise CompressionError(
            'criterion "taylor": gradients are infinite or NaN; take a loss that has one everywhere'
        )
    return scores


def _backward(network: nn.Module, batch: Any, number: int, loss: Loss | None) -> None:
    what = f'criterion "taylor": batch {number}'
    if not isinstance(batch, tuple | list) or len(batch) != 2:
        raise CompressionError(
            f"{what}: expected a pair (inputs, labels), found {type(batch).__name__}"
        )
    inputs, labels = batch
    try:
        value = loss_of(network, inputs, labels, loss)
        value.backward()  # type: ignore[no-untyped-call]
    except torch.OutOfMemoryError:
        raise
    except CompressionError as error:
        raise type(error)(f"{what}: {error}") from error
    except Exception as error:  # whatever the user's code does with a batch
        raise CompressionError(
            f"{what} fails at {failing_module(network, error)}: {error}"
        ) from error
    if not torch.isfinite(value):
        raise CompressionError(
            f"{what}: the loss is {value.item()}; leave the batch out, or what in it is no number"
        )
