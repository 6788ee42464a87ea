"""Checks of techniques that write weights: what was asked is found, the rest is as it was."""

import torch
from torch import Tensor, nn

from benchmarks.coverage.case import Case, require
from compression.clustering import share_weights
from compression.layers import left_out
from compression.pruning import (
    is_n_of_m,
    prune_l1_global,
    prune_l1_unstructured,
    prune_ln_structured,
    prune_n_of_m,
)

AMOUNT = 0.6
GLOBAL_AMOUNT = 0.3
"""Drawn weights are as small as a layer is wide: a larger amount would empty the widest."""
NUM_CLUSTERS = 16
UNSETTLED = 0.02
"""Of a weight's range: how far k-means may still be from its end, where it stops iterating."""


def check_l1_unstructured(case: Case) -> str:
    """Each reached weight has lost its smallest magnitudes, as many as asked."""
    result = prune_l1_unstructured(case.model, amount=AMOUNT)
    reached = _reached_weights(case.model, result)
    for name, (before, after) in reached.items():
        _require_pruned(name, before, after, AMOUNT)
    return _count_left_out(result)


def check_l1_global(case: Case) -> str:
    """All reached weights together have lost their smallest magnitudes."""
    result = prune_l1_global(case.model, amount=GLOBAL_AMOUNT)
    pairs = _reached_weights(case.model, result).values()
    before, after = (torch.cat([pair[i].flatten() for pair in pairs]) for i in (0, 1))
    _require_pruned("all weights", before, after, GLOBAL_AMOUNT)
    return _count_left_out(result)


def check_ln_structured(case: Case) -> str:
    """Each reached convolution has lost so many filters, those of the smallest norm."""
    result = prune_ln_structured(case.model, amount=AMOUNT)
    for name, (before, after) in _reached_weights(case.model, result).items():
        _require_kept_weights(name, before, after)
        norms, zero = before.flatten(1).norm(dim=1), (after.flatten(1) == 0).all(1)
        asked, found = round(AMOUNT * len(zero)), int(zero.sum())
        require(found == asked, f"{name}: {found} filters are zero, expected {asked}")
        if 0 < found < len(zero):
            smallest = float(norms[~zero].min()) * (1 + 1e-6)
            require(float(norms[zero].max()) <= smallest, f"{name}: a larger filter went first")
    return _count_left_out(result)


def check_n_of_m(case: Case) -> str:
    """Each reached weight is 2:4."""
    result = prune_n_of_m(case.model)
    for name, (before, after) in _reached_weights(case.model, result).items():
        _require_kept_weights(name, before, after)
        require(is_n_of_m(after), f"{name} is not 2:4")
        zeros = float((after == 0).float().mean())
        require(abs(zeros - 0.5) < 1e-3, f"{name}: {zeros:.3f} is zero, expected 0.5")
    return _count_left_out(result)


def check_share_weights(case: Case) -> str:
    """Each reached weight takes few values, each near what it was."""
    result = share_weights(case.model, num_clusters=NUM_CLUSTERS)
    for name, (before, after) in _reached_weights(case.model, result).items():
        values = after.unique()
        require(len(values) <= NUM_CLUSTERS, f"{name} takes {len(values)} values")
        some = slice(None, None, max(1, before.numel() // 1000))
        moved = (after - before).flatten()[some].abs()
        nearest = (values[:, None] - before.flatten()[some]).abs().amin(0)
        slack = UNSETTLED * float(before.max() - before.min())
        require(bool((moved <= nearest + slack).all()), f"{name}: not the nearest value")
    return _count_left_out(result)


def _reached_weights(model: nn.Module, result: nn.Module) -> dict[str, tuple[Tensor, Tensor]]:
    """Return each weight that was reached, before and after; what is left out must be unchanged."""
    names, after = left_out(result), dict(result.named_parameters())
    reached: dict[str, tuple[Tensor, Tensor]] = {}
    for name, before in model.named_parameters():
        if before.ndim > 1 and name not in names:
            reached[name] = before.detach(), after[name].detach()
        else:
            require(torch.equal(before, after[name]), f"{name} is left out, and changed")
    require(bool(reached), "every weight was left out")
    states = zip(model.named_buffers(), result.named_buffers(), strict=True)
    for (name, old), (_, new) in states:
        require(torch.equal(old, new), f"the buffer {name} changed")
    return reached


def _require_pruned(name: str, before: Tensor, after: Tensor, amount: float) -> None:
    _require_kept_weights(name, before, after)
    zero = after == 0
    asked, found = round(amount * zero.numel()), int(zero.sum())
    require(found == asked, f"{name}: {found} of {zero.numel()} are zero, expected {asked}")
    if 0 < found < zero.numel():
        right = float(before[zero].abs().max()) <= float(before[~zero].abs().min())
        require(right, f"{name}: a larger weight went first")


def _require_kept_weights(name: str, before: Tensor, after: Tensor) -> None:
    kept = after != 0
    require(torch.equal(before[kept], after[kept]), f"{name}: a weight that was kept changed")


def _count_left_out(result: nn.Module) -> str:
    """Say how many weights were left out."""
    missed = len(left_out(result))
    return f"{missed} left" if missed else ""
