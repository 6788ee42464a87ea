"""Masks: which weights of a tensor a criterion keeps."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from compression.checks import is_whole
from compression.errors import CompressionError, UnsupportedTypeError


def l1_mask(weight: Tensor, *, amount: float) -> Tensor:
    """Return the mask (bool, True = keep) that removes the smallest magnitudes, ties by index."""
    return _keep_largest(_magnitudes(weight), amount)


def l1_masks_together(values: Sequence[Tensor], *, amount: float) -> list[Tensor]:
    """Return a mask for each tensor; the smallest magnitudes of all of them together go."""
    place = values[0].device
    keep = l1_mask(torch.cat([v.detach().reshape(-1).to(place) for v in values]), amount=amount)
    parts = keep.split([value.numel() for value in values])
    return [part.view(v.shape).to(v.device) for part, v in zip(parts, values, strict=True)]


def random_mask(weight: Tensor, *, amount: float, generator: torch.Generator) -> Tensor:
    """Return the mask that removes weights at random, zeros first: the control of every criterion."""
    _check_tensor(weight)
    scores = torch.rand(weight.shape, generator=generator).to(weight.device) + 1
    return _keep_largest(torch.where(weight.detach() == 0, 0, scores), amount)


def ln_filter_mask(weight: Tensor, *, amount: float, n: float = 2, dim: int = 0) -> Tensor:
    """Return the mask that removes whole slices along `dim` (0: filters) of the smallest Ln norm."""
    magnitudes = _magnitudes(weight)
    if not is_whole(dim) or not 0 <= dim < weight.ndim:
        raise CompressionError(f"dim must lie in 0..{weight.ndim - 1}, found {dim!r}")
    if type(n) not in (float, int) or not n > 0:
        raise CompressionError(f"the norm's n must be above 0, found {n!r}")
    slices = magnitudes.movedim(dim, 0).flatten(1) if weight.ndim > 1 else magnitudes[:, None]
    keep = _keep_largest(torch.linalg.vector_norm(slices, ord=n, dim=1), amount)
    return keep.view([-1 if d == dim else 1 for d in range(weight.ndim)]).expand(weight.shape)


def n_of_m_mask(weight: Tensor, *, n: int = 2, m: int = 4) -> Tensor:
    """Return the mask that keeps the `n` largest magnitudes of each `m` weights, ties by index.

    A group is `m` consecutive input channels (dimension 1) at one kernel position; among equals the
    first go. For n = 2 and m = 4 it is the pattern of sparse tensor cores (Mishra et al. 2021,
    arXiv:2104.08378).
    """
    groups = _groups(_magnitudes(weight), n, m).movedim(2, 0).contiguous()
    # Comparing all pairs is several times faster than sorting groups that are this small.
    larger = torch.zeros(groups.shape, dtype=torch.int16, device=weight.device)
    for i in range(m):
        for j in range(i + 1, m):
            last_wins = groups[j] >= groups[i]
            larger[i] += last_wins
            larger[j] += ~last_wins
    return (larger < n).movedim(0, 2).reshape(weight.shape)


def is_n_of_m(weight: Tensor, *, n: int = 2, m: int = 4) -> bool:
    """Tell whether each `m` consecutive input channels (dimension 1) hold at most `n` nonzeros."""
    check_n_of_m(n, m)
    _check_tensor(weight)
    if weight.ndim < 2 or weight.shape[1] % m:
        return False
    return bool(((_groups(weight, n, m) != 0).sum(dim=2) <= n).all())


def check_amount(amount: float) -> None:
    """Refuse what is no fraction to remove."""
    if isinstance(amount, bool) or not isinstance(amount, float | int) or not 0 <= amount < 1:
        raise CompressionError(
            f"amount is the fraction to remove, from 0 up to but without 1, found {amount!r}; "
            "pass 0.6 for 60%"
        )


def check_n_of_m(n: int, m: int) -> None:
    """Refuse what is no pattern of n of m."""
    if not (is_whole(n) and is_whole(m)) or not 1 <= n < m:
        raise CompressionError(
            f"n of m must be whole numbers with 1 <= n < m, found {n!r} of {m!r}; pass n=2, m=4"
        )


def _check_tensor(weight: Tensor) -> None:
    if not isinstance(weight, Tensor):
        raise UnsupportedTypeError(f"expected a weight tensor, found {type(weight).__name__}")


def _magnitudes(weight: Tensor) -> Tensor:
    """Return the magnitudes in float32 or better: not every kernel knows narrower numbers."""
    _check_tensor(weight)
    magnitudes = weight.detach().abs()
    return magnitudes if magnitudes.dtype == torch.float64 else magnitudes.float()


def _groups(weight: Tensor, n: int, m: int) -> Tensor:
    check_n_of_m(n, m)
    if weight.ndim < 2 or weight.shape[1] % m:
        raise CompressionError(
            f"{n}:{m} sparsity needs a weight whose dimension 1, its input channels, is a multiple "
            f"of {m}, found the shape {tuple(weight.shape)}"
        )
    return weight.detach().unflatten(1, (weight.shape[1] // m, m))


def _keep_largest(scores: Tensor, amount: float) -> Tensor:
    check_amount(amount)
    removed = round(amount * scores.numel())
    flat = scores.reshape(-1)
    if removed == 0:
        return torch.ones_like(scores, dtype=torch.bool)
    threshold = _kth_smallest(flat, removed)
    keep = flat > threshold
    # Among equals the first go.
    equals = (flat == threshold).nonzero().reshape(-1)
    keep[equals[removed - int((flat < threshold).sum()) :]] = True
    return keep.view(scores.shape)


def _kth_smallest(flat: Tensor, k: int) -> Tensor:
    """Return the k-th smallest of (n,), k from 1, in linear time, which a sort is not."""
    if flat.device.type != "cpu":
        return flat.kthvalue(k).values
    # numpy's selection takes a fifth of the time of torch's.
    return torch.from_numpy(np.partition(flat.numpy(), k - 1)[k - 1 : k])[0]
