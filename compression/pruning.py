"""Pruning: masks on tensors first, then networks whose removed weights are zero.

An `amount` is the fraction of weights (or filters) that are zero afterwards, from 0 up to but
without 1: pruning twice by 0.5 leaves 0.5, not 0.75, because zeros are the first to be chosen again.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from compression.errors import CompressionError
from compression.layers import channel_axis, compressible_layers, copy_model
from compression.training import Recipe, Split, fit


def l1_mask(weight: Tensor, *, amount: float) -> Tensor:
    """Return the mask (bool, True = keep) that removes the smallest magnitudes, ties by index."""
    return _keep_largest(weight.detach().abs(), amount)


def random_mask(weight: Tensor, *, amount: float, generator: torch.Generator) -> Tensor:
    """Return the mask that removes weights at random, zeros first: the control of every criterion."""
    scores = torch.rand(weight.shape, generator=generator).to(weight.device) + 1
    return _keep_largest(torch.where(weight.detach() == 0, 0, scores), amount)


def ln_filter_mask(weight: Tensor, *, amount: float, n: float = 2, dim: int = 0) -> Tensor:
    """Return the mask that removes whole slices along `dim` (0: filters) of the smallest Ln norm."""
    if not 0 <= dim < weight.ndim:
        raise CompressionError(f"dim must lie in 0..{weight.ndim - 1}, found {dim!r}")
    if not n > 0:
        raise CompressionError(f"the norm's n must be above 0, found {n!r}")
    slices = weight.detach().float().movedim(dim, 0).reshape(weight.shape[dim], -1)
    keep = _keep_largest(torch.linalg.vector_norm(slices, ord=n, dim=1), amount)
    return keep.view([-1 if d == dim else 1 for d in range(weight.ndim)]).expand(weight.shape)


def n_of_m_mask(weight: Tensor, *, n: int = 2, m: int = 4) -> Tensor:
    """Return the mask that keeps the `n` largest magnitudes of each `m` weights, ties by index.

    A group is `m` consecutive input channels (dimension 1) at one kernel position; among equals the
    first go. For n = 2 and m = 4 it is the pattern of sparse tensor cores (Mishra et al. 2021,
    arXiv:2104.08378).
    """
    groups = _groups(weight, n, m).abs().movedim(2, 0).contiguous()
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
    _check_n_of_m(n, m)
    if weight.ndim < 2 or weight.shape[1] % m:
        return False
    return bool(((_groups(weight, n, m) != 0).sum(dim=2) <= n).all())


def prune_l1_unstructured(model: nn.Module, *, amount: float) -> nn.Module:
    """Return a copy with the smallest-magnitude `amount` of each layer's weights at zero.

    Local magnitude pruning, the paper's section 4.4 (Han et al. 2015, arXiv:1506.02626).
    """
    return _pruned(model, lambda weight: l1_mask(weight, amount=amount))


def prune_random_unstructured(model: nn.Module, *, amount: float, seed: int = 0) -> nn.Module:
    """Return a copy with a random `amount` of each layer's weights at zero, the paper's control."""
    generator = torch.Generator().manual_seed(seed)
    return _pruned(model, lambda w: random_mask(w, amount=amount, generator=generator))


def prune_ln_structured(
    model: nn.Module, *, amount: float, n: float = 2, dim: int = 0
) -> nn.Module:
    """Return a copy with the `amount` of each convolution's filters of smallest Ln norm at zero.

    Linear layers keep their rows: those of the last one are the classes (Li et al. 2017,
    arXiv:1608.08710, for n = 1). The filters are zeroed, not removed.
    """
    _check_amount(amount)
    pruned = copy_model(model)
    layers = compressible_layers(pruned)
    convolutions = {k: v for k, v in layers.items() if not isinstance(v, nn.Linear)}
    if not convolutions:
        raise CompressionError("structured pruning needs a convolution, found linear layers only")
    for name, layer in convolutions.items():
        _apply(layer, ln_filter_mask(_weight(layer), amount=amount, n=n, dim=dim), name)
    return pruned


def prune_l1_global(model: nn.Module, *, amount: float) -> nn.Module:
    """Return a copy with the smallest-magnitude `amount` of all layers' weights together at zero.

    Refuses an amount that would empty a layer, since the network would then ignore its input.
    """
    _check_amount(amount)
    pruned = copy_model(model)
    layers = compressible_layers(pruned)
    weights = [_weight(layer) for layer in layers.values()]
    keep = l1_mask(torch.cat([w.detach().reshape(-1) for w in weights]), amount=amount)
    parts = keep.split([w.numel() for w in weights])
    for (name, layer), weight, part in zip(layers.items(), weights, parts, strict=True):
        _apply(layer, part.view(weight.shape), name)
    return pruned


def prune_n_of_m(model: nn.Module, *, n: int = 2, m: int = 4) -> nn.Module:
    """Return a copy with the `n` largest magnitudes of each `m` weights kept, the rest at zero.

    A group is `m` consecutive input channels at one kernel position, the rows that a channels-last
    matrix product reads. A layer whose input channels (of one group of channels) are no multiple of
    `m` stays dense; CompressionError where that is every layer. Mishra et al. 2021, arXiv:2104.08378.
    """
    _check_n_of_m(n, m)
    pruned = copy_model(model)
    layers = compressible_layers(pruned)
    found = {name: _input_channels(layer) for name, layer in layers.items()}
    if all(channels % m for channels in found.values()):
        raise CompressionError(
            f"{n}:{m} pruning needs a layer whose input channels are a multiple of {m}, found "
            + ", ".join(f"{name} with {channels}" for name, channels in list(found.items())[:5])
        )
    for name, layer in layers.items():
        if found[name] % m == 0:
            inputs = 1 - channel_axis(layer)
            keep = n_of_m_mask(_weight(layer).transpose(inputs, 1), n=n, m=m)
            _apply(layer, keep.transpose(inputs, 1), name)
    return pruned


def keep_zeros(model: nn.Module) -> Callable[[], None]:
    """Return a function that sets the weights that are zero now to zero again.

    Run behind every optimizer step: momentum and weight decay move pruned weights even where their
    gradient is masked.
    """
    weights = [_weight(layer) for layer in compressible_layers(model).values()]
    zeros = [(weight, weight.detach() == 0) for weight in weights]

    def zero_again() -> None:
        with torch.no_grad():
            for weight, zero in zeros:
                weight.masked_fill_(zero, 0)

    return zero_again


def fine_tune(model: nn.Module, train: Split, recipe: Recipe) -> nn.Module:
    """Return a copy trained by `recipe` whose zeros are those of `model`."""
    tuned = copy_model(model)
    fit(tuned, train, recipe, after_step=keep_zeros(tuned))
    return tuned


def sparsity(model: nn.Module) -> float:
    """Return the fraction of the compressible layers' weights that is zero."""
    weights = [_weight(layer).detach() for layer in compressible_layers(model).values()]
    zeros = sum(int((weight == 0).sum()) for weight in weights)
    return zeros / sum(weight.numel() for weight in weights)


def _check_amount(amount: float) -> None:
    if isinstance(amount, bool) or not isinstance(amount, float | int) or not 0 <= amount < 1:
        raise CompressionError(
            f"amount is the fraction to remove, from 0 up to but without 1, found {amount!r}; "
            "pass 0.6 for 60%"
        )


def _check_n_of_m(n: int, m: int) -> None:
    whole = all(isinstance(x, int) and not isinstance(x, bool) for x in (n, m))
    if not whole or not 1 <= n < m:
        raise CompressionError(
            f"n of m must be whole numbers with 1 <= n < m, found {n!r} of {m!r}; pass n=2, m=4"
        )


def _groups(weight: Tensor, n: int, m: int) -> Tensor:
    _check_n_of_m(n, m)
    if weight.ndim < 2 or weight.shape[1] % m:
        raise CompressionError(
            f"{n}:{m} sparsity needs a weight whose dimension 1, its input channels, is a multiple "
            f"of {m}, found the shape {tuple(weight.shape)}"
        )
    return weight.detach().unflatten(1, (weight.shape[1] // m, m))


def _input_channels(layer: nn.Module) -> int:
    if isinstance(layer, nn.ConvTranspose2d):
        return layer.in_channels // layer.groups
    return _weight(layer).shape[1]


def _keep_largest(scores: Tensor, amount: float) -> Tensor:
    _check_amount(amount)
    removed = round(amount * scores.numel())
    flat = scores.reshape(-1)
    if removed == 0:
        return torch.ones_like(scores, dtype=torch.bool)
    # Selecting is linear where a stable sort is not; among equals the first go.
    threshold = flat.kthvalue(removed).values
    keep = flat > threshold
    equals = (flat == threshold).nonzero().reshape(-1)
    keep[equals[removed - int((flat < threshold).sum()) :]] = True
    return keep.view(scores.shape)


def _pruned(model: nn.Module, mask: Callable[[Tensor], Tensor]) -> nn.Module:
    pruned = copy_model(model)
    for name, layer in compressible_layers(pruned).items():
        _apply(layer, mask(_weight(layer)), name)
    return pruned


def _apply(layer: nn.Module, keep: Tensor, name: str) -> None:
    if not keep.any():
        raise CompressionError(f"{name}: every weight would be removed; lower the amount")
    with torch.no_grad():
        _weight(layer).masked_fill_(~keep, 0)


def _weight(layer: nn.Module) -> Tensor:
    weight = layer.weight
    if not isinstance(weight, Tensor):
        raise TypeError(f"{type(layer).__name__} has no weight tensor")
    return weight
