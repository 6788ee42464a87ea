"""Pruning: masks on tensors first, then networks whose removed weights are zero.

An `amount` is the fraction of weights (or filters) that are zero afterwards, 0 <= amount < 1: pruning
twice by 0.5 leaves 0.5, not 0.75, because zeros are the first to be chosen again.
"""

from compression.pruning.masks import (
    is_n_of_m,
    l1_mask,
    ln_filter_mask,
    n_of_m_mask,
    random_mask,
)
from compression.pruning.networks import (
    fine_tune,
    keep_zeros,
    prune_l1_global,
    prune_l1_unstructured,
    prune_ln_structured,
    prune_n_of_m,
    prune_random_unstructured,
    sparsity,
)

__all__ = [
    "fine_tune",
    "is_n_of_m",
    "keep_zeros",
    "l1_mask",
    "ln_filter_mask",
    "n_of_m_mask",
    "prune_l1_global",
    "prune_l1_unstructured",
    "prune_ln_structured",
    "prune_n_of_m",
    "prune_random_unstructured",
    "random_mask",
    "sparsity",
]
