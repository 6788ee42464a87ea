"""Networks whose removed weights are zero."""

from collections.abc import Callable, Collection
from typing import Any

import torch
from torch import Tensor, nn

from compression.checks import is_whole
from compression.distillation import HINTON, Distillation, taught
from compression.errors import CompressionError
from compression.layers import (
    CONVOLUTIONS,
    TRANSPOSED,
    check_model,
    copy_model,
    filters,
    parameter_tensors,
    record_left_out,
    unfilters,
)
from compression.pruning.masks import (
    check_amount,
    check_n_of_m,
    l1_mask,
    l1_masks_together,
    ln_filter_mask,
    n_of_m_mask,
    random_mask,
)
from compression.pruning.outputs import output_layers
from compression.training import EpochReport, Labelled, Loss, Recipe, fit
from compression.weights import Weight, unreached_weights, weights

_PRUNABLE = (*CONVOLUTIONS, *TRANSPOSED)


def prune_l1_unstructured(model: nn.Module, *, amount: float) -> nn.Module:
    """Return a copy with the smallest-magnitude `amount` of each layer's weights at zero.

    It reaches linear layers, convolutions, attention, recurrent and bilinear layers, and prunes a
    tied weight once; left_out lists other matrices, embeddings among them. CompressionError for a
    model without such layers, and for an amount outside of 0 <= amount < 1. Local magnitude pruning,
    the paper's section 4.4 (Han et al. 2015, arXiv:1506.02626).

    >>> sparsity(prune_l1_unstructured(nn.Linear(8, 4), amount=0.75))
    0.75
    """
    return _prune(model, amount, lambda weight: l1_mask(weight, amount=amount))


def prune_random_unstructured(model: nn.Module, *, amount: float, seed: int = 0) -> nn.Module:
    """Return a copy with a random `amount` of each layer's weights at zero, the paper's control.

    It reaches what prune_l1_unstructured does, and raises what that does. The same seed removes the
    same weights.

    >>> sparsity(prune_random_unstructured(nn.Linear(8, 4), amount=0.5, seed=1))
    0.5
    """
    if not is_whole(seed):
        raise CompressionError(f"seed must be a whole number, found {seed!r}")
    generator = torch.Generator().manual_seed(seed)
    return _prune(model, amount, lambda w: random_mask(w, amount=amount, generator=generator))


def prune_ln_structured(
    model: nn.Module,
    *,
    amount: float,
    n: float = 2,
    dim: int = 0,
    outputs: Collection[str] | None = None,
) -> nn.Module:
    """Return a copy with the `amount` of each convolution's filters of smallest Ln norm at zero.

    Filters are zeroed, not removed. They lie along `dim` of a convolution's weight (filters, inputs
    of a group, *kernel); a transposed one is read in that order too. Linear layers keep their rows,
    and so do the layers that make the network's outputs, whose filters are classes: left_out lists
    both. torch.fx finds the layers of the outputs; name them as `outputs` for a network that it
    cannot trace. A network of one layer is taken for a part of one, and is pruned. CompressionError
    where no convolution is left to prune. Li et al. 2017, arXiv:1608.08710, for n = 1.

    >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(8 * 36, 2))
    >>> pruned = prune_ln_structured(model, amount=0.25)
    >>> int((pruned[0].weight.flatten(1) == 0).all(dim=1).sum())
    2
    """
    check_amount(amount)
    pruned = copy_model(model)
    reached = weights(pruned)
    missed = unreached_weights(pruned, [weight.tensor for weight in reached])
    convolutions = [weight for weight in reached if isinstance(weight.layer, _PRUNABLE)]
    if not convolutions:
        raise CompressionError("structured pruning needs a convolution, found linear layers only")
    kept: set[nn.Module] = set()
    if len(reached) > 1 or outputs is not None:
        kept = output_layers(pruned, outputs)
    # By tensor: a layer of the outputs may share its weight with another one.
    answers = {id(w.tensor) for w in weights(pruned, tied=True) if w.layer in kept}
    for weight in reached:
        if id(weight.tensor) in answers:
            missed[weight.name] = "its filters make the network's outputs"
        elif weight in convolutions:
            rows = filters(weight.tensor, weight.layer)
            keep = ln_filter_mask(rows, amount=amount, n=n, dim=dim)
            _apply(weight, unfilters(keep, weight.layer))
        else:
            missed[weight.name] = "structured pruning takes filters of convolutions"
    if answers.issuperset(id(weight.tensor) for weight in convolutions):
        raise CompressionError(
            "structured pruning needs a convolution that does not make the network's outputs, found "
            + ", ".join(weight.label for weight in convolutions[:5])
        )
    record_left_out(pruned, missed)
    return pruned


def prune_l1_global(model: nn.Module, *, amount: float) -> nn.Module:
    """Return a copy with the smallest-magnitude `amount` of all layers' weights together at zero.

    It reaches what prune_l1_unstructured does. CompressionError for an amount that would empty a
    layer, since the network would then ignore its input. Han et al. 2015, arXiv:1506.02626.

    >>> model = nn.Sequential(nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 8))
    >>> sparsity(prune_l1_global(model, amount=0.5))
    0.5
    """
    check_amount(amount)
    pruned = copy_model(model)
    reached = weights(pruned)
    masks = l1_masks_together([weight.tensor for weight in reached], amount=amount)
    for weight, keep in zip(reached, masks, strict=True):
        _apply(weight, keep)
    record_left_out(pruned, unreached_weights(pruned, [weight.tensor for weight in reached]))
    return pruned


def prune_n_of_m(model: nn.Module, *, n: int = 2, m: int = 4) -> nn.Module:
    """Return a copy with the `n` largest magnitudes of each `m` weights kept, the rest at zero.

    The `m` weights are those of consecutive input channels at one kernel position, the rows that a
    channels-last matrix product reads. A layer whose input channels per group of channels are no
    multiple of `m` stays dense, and left_out lists it; CompressionError where that is every layer.
    Mishra et al. 2021, arXiv:2104.08378.

    >>> sparsity(prune_n_of_m(nn.Linear(8, 4), n=2, m=4))
    0.5
    """
    check_n_of_m(n, m)
    pruned = copy_model(model)
    reached = weights(pruned)
    missed = unreached_weights(pruned, [weight.tensor for weight in reached])
    inputs = {w.name: filters(w.tensor.detach(), w.layer).shape[1] for w in reached}
    if all(channels % m for channels in inputs.values()):
        raise CompressionError(
            f"{n}:{m} pruning needs a layer whose input channels are a multiple of {m}, found "
            + ", ".join(f"{w.label} with {inputs[w.name]}" for w in reached[:5])
        )
    for weight in reached:
        if inputs[weight.name] % m == 0:
            keep = n_of_m_mask(filters(weight.tensor, weight.layer), n=n, m=m)
            _apply(weight, unfilters(keep, weight.layer))
        else:
            missed[weight.name] = f"its {inputs[weight.name]} input channels are no multiple of {m}"
    record_left_out(pruned, missed)
    return pruned


def keep_zeros(model: nn.Module) -> Callable[[], None]:
    """Return a function that sets the weights that are zero now to zero again.

    Call it after every optimizer step: momentum and weight decay move pruned weights even where their
    gradient is masked. The weights are those that prune_l1_unstructured reaches.
    """
    zeros = [(weight.tensor, weight.tensor.detach() == 0) for weight in weights(model)]

    def zero_again() -> None:
        with torch.no_grad():
            for weight, zero in zeros:
                weight.masked_fill_(zero, 0)

    return zero_again


def fine_tune(
    model: nn.Module,
    train: Labelled,
    recipe: Recipe,
    *,
    teacher: nn.Module | None = None,
    distillation: Distillation = HINTON,
    loss: Loss | None = None,
    on_epoch: Callable[[EpochReport], None] | None = None,
    resume_from: dict[str, Any] | None = None,
) -> nn.Module:
    """Return a copy trained on `train` by `recipe` whose zeros are those of `model`.

    A `teacher`, as a rule the network before it was pruned, helps as in `distill`, by the loss
    `distillation`; `loss`, `on_epoch` and `resume_from` are those of `fit`. Raises what `fit` and
    `distill` raise. Han et al. 2015, arXiv:1506.02626.

    >>> from compression import Split
    >>> train = Split(torch.randn(32, 8), torch.arange(32) % 2, prepare=lambda x: x)
    >>> whole, recipe = nn.Linear(8, 2), Recipe(epochs=1, batch_size=16, learning_rate=0.1)
    >>> pruned = prune_l1_unstructured(whole, amount=0.5)
    >>> sparsity(fine_tune(pruned, train, recipe, teacher=whole))
    0.5
    """
    tuned = copy_model(model)
    with taught(tuned, teacher, train, recipe, distillation, loss) as goal:
        fit(
            tuned,
            train,
            recipe,
            loss=goal,
            after_step=keep_zeros(tuned),
            on_epoch=on_epoch,
            resume_from=resume_from,
        )
    return tuned


def sparsity(model: nn.Module) -> float:
    """Return the fraction of the network's weights that is zero, real numbers or integer codes.

    Weights are all its matrices, parameters of two dimensions or more, a tied one once: what a
    technique left out counts too. CompressionError for a network without any.

    >>> sparsity(nn.Linear(8, 4))
    0.0
    """
    check_model(model)
    matrices = [t.detach() for _, t in parameter_tensors(model) if t.ndim > 1 and t.numel()]
    if not matrices:
        weights(model)  # tells what was found instead
    zeros = sum(int((matrix == 0).sum()) for matrix in matrices)
    return zeros / sum(matrix.numel() for matrix in matrices)


def _prune(model: nn.Module, amount: float, mask: Callable[[Tensor], Tensor]) -> nn.Module:
    check_amount(amount)
    pruned = copy_model(model)
    reached = weights(pruned)
    for weight in reached:
        _apply(weight, mask(weight.tensor))
    record_left_out(pruned, unreached_weights(pruned, [weight.tensor for weight in reached]))
    return pruned


def _apply(weight: Weight, keep: Tensor) -> None:
    if not keep.any():
        raise CompressionError(f"{weight.label}: every weight would be removed; lower the amount")
    with torch.no_grad():
        weight.tensor.masked_fill_(~keep, 0)
