"""Which weights of a network stay while it trains: the largest, of all layers or of each."""

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from compression.errors import CompressionError
from compression.pruning.masks import check_amount, l1_mask, l1_masks_together
from compression.weights import Weight

Scope = Literal["global", "layer"]


def largest_masks(values: Sequence[Tensor], *, amount: float, scope: Scope) -> list[Tensor]:
    """Return the masks (bool, True = keep) that remove `amount` of `values`, the smallest first.

    "global" ranks the values of all tensors together, but for each tensor's largest, which stays: a
    layer of zeros would ignore its input. "layer" removes `amount` of each tensor.
    """
    if scope == "layer":
        return [l1_mask(value, amount=amount) for value in values]
    return l1_masks_together([_with_one_kept(value) for value in values], amount=amount)


def zero_smallest(reached: Sequence[Weight], *, amount: float, scope: Scope) -> None:
    """Set `amount` of the weights to zero, in place, the smallest first."""
    masks = largest_masks([w.tensor.detach() for w in reached], amount=amount, scope=scope)
    with torch.no_grad():
        for weight, keep in zip(reached, masks, strict=True):
            weight.tensor.masked_fill_(~keep, 0)


def zero_share(reached: Sequence[Weight]) -> float:
    """Return the fraction of the weights that is zero."""
    zeros = sum(int((weight.tensor.detach() == 0).sum()) for weight in reached)
    return zeros / sum(weight.tensor.numel() for weight in reached)


def check_removal(reached: Sequence[Weight], amount: float, scope: Scope) -> None:
    """Refuse, before a training begins, an amount that would leave a layer without a weight."""
    check_amount(amount)
    if scope not in get_args(Scope):
        raise CompressionError(f"scope must be 'global' or 'layer', found {scope!r}")
    counts = [weight.tensor.numel() for weight in reached]
    kept = sum(counts) - round(amount * sum(counts))
    if scope == "global" and kept < len(counts):
        raise CompressionError(
            f"an amount of {amount} keeps {kept} of {sum(counts)} weights, fewer than the "
            f"{len(counts)} layers; lower the amount"
        )
    for weight, count in zip(reached, counts, strict=True):
        if scope == "layer" and round(amount * count) == count:
            raise CompressionError(
                f"{weight.label}: an amount of {amount} removes all of its {count} weights; lower the "
                "amount, or prune all layers together by scope='global'"
            )


def _with_one_kept(value: Tensor) -> Tensor:
    """Return the magnitudes with the first largest at infinity, unless all are zero."""
    magnitudes = value.detach().flatten().abs()
    largest = magnitudes.argmax()
    magnitudes[largest] = torch.where(magnitudes[largest] > 0, torch.inf, 0.0)
    return magnitudes.view(value.shape)
