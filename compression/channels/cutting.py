"""Networks without some of their channels, or with zeros in their place."""

from typing import Any

import torch
from torch import Tensor, nn

from compression.attention import is_projection
from compression.channels.walk import Channels, Place
from compression.layers import copy_model
from compression.narrow import record_widths, replace_tensor, write_out


@torch.no_grad()
def cut(model: nn.Module, channels: Channels, gone: Tensor) -> nn.Module:
    """Return a copy of `model` without the channels that are `gone` (bool per label)."""
    smaller = copy_model(model)
    found: dict[str, dict[str, Any]] = {}
    counted = {place.module for place in channels.counts}
    cut_before: dict[int, Tensor] = {}
    for place, axes in _places(channels).items():
        module = smaller.get_submodule(place.module)
        held = getattr(module, place.attribute)
        left = cut_before.get(id(held))
        if left is None:
            left = _cut(held, [(axis, _stays(channels, gone, labels)) for axis, labels in axes])
        if left is held:
            continue
        replace_tensor(module, place.attribute, left)
        cut_before[id(held)] = getattr(module, place.attribute)
        if place.module not in counted and not is_projection(module, place.attribute):
            found.setdefault(place.module, {})[place.attribute] = list(left.shape)
    counts = {
        place: int(_stays(channels, gone, labels).sum())
        for place, labels in channels.counts.items()
    }
    fewer = {place: n for place, n in counts.items() if n < len(channels.counts[place])}
    write_out(smaller, {place.module for place in fewer})
    for place, count in fewer.items():
        setattr(smaller.get_submodule(place.module), place.attribute, count)
        found.setdefault(place.module, {})[place.attribute] = count
    record_widths(smaller, found)
    return smaller


def _cut(held: Tensor, axes: list[tuple[int, Tensor]]) -> Tensor:
    """Return what stays along some axes, in memory as `held` lies; `held` itself where all does."""
    left = held
    for axis, stays in axes:
        if not bool(stays.all()):
            left = left.index_select(axis, stays.nonzero().view(-1).to(held.device))
    if left is held:
        return held
    last = held.ndim == 4 and not held.is_contiguous()
    return left.contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)


@torch.no_grad()
def zero(model: nn.Module, channels: Channels, gone: Tensor) -> nn.Module:
    """Return a copy of `model` in which all that belongs to channels that are `gone` is 0.

    That is their filters, biases and norms, and the weights that read them.
    """
    zeroed = copy_model(model)
    for place, axes in _places(channels).items():
        held = getattr(zeroed.get_submodule(place.module), place.attribute)
        for axis, labels in axes:
            index = (~_stays(channels, gone, labels)).nonzero().view(-1)
            held.index_fill_(axis, index.to(held.device), 0)
    return zeroed


def _places(channels: Channels) -> dict[Place, list[tuple[int, Tensor]]]:
    """Return the axes of each tensor that has labels, and these."""
    axes: dict[Place, list[tuple[int, Tensor]]] = {}
    for (place, axis), labels in channels.owned.items():
        axes.setdefault(place, []).append((axis, labels))
    return axes


def _stays(channels: Channels, gone: Tensor, labels: Tensor) -> Tensor:
    return ~gone[channels.labels.roots(labels)]
