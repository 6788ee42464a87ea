"""Networks whose layers take few values."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from compression.clustering.kmeans import MAX_CLUSTERS, Init, check_options, cluster
from compression.distillation import HINTON, Distillation, taught
from compression.errors import CompressionError, UnsupportedTypeError
from compression.layers import copy_model, record_left_out
from compression.training import Labelled, Loss, Recipe, fit
from compression.weights import unreached_weights, weights


@torch.no_grad()
def share_weights(
    model: nn.Module,
    *,
    num_clusters: int,
    init: Init = "linear",
    bit_cost: float = 0,
    seed: int = 0,
) -> nn.Module:
    """Return a copy in eval mode whose layers' weights take at most `num_clusters` values each.

    It reaches linear layers, convolutions, attention, recurrent and bilinear layers; left_out lists
    other matrices, embeddings among them. Weights keep their dtype and their ties. Zeros stay zeros.

    num_clusters  2 to 256 per layer; 0.0 counts where a layer has zeros
    init          where k-means starts: "linear", "density" or "random" (initial_centroids)
    bit_cost      price of a bit, in mean squares of all weights; above 0 small weights become zero,
                  and one price holds for all layers, as the least error of a file's size asks for
    seed          of the "random" start

    CompressionError for options out of these ranges. Han et al. 2016, arXiv:1510.00149; with a price
    on bits Choi et al. 2017, arXiv:1612.01543.

    >>> shared_values(share_weights(nn.Linear(8, 4), num_clusters=4))
    {'': 4}
    """
    check_options(num_clusters, init, seed, bit_cost, fewest=2)
    shared, priced = copy_model(model).eval(), bit_cost > 0
    options: dict[str, Any] = {"init": init, "seed": seed, "zero": priced}
    floating = floating_weights(shared)
    squares = {name: float(weight.double().square().sum()) for name, weight in floating.items()}
    mean = sum(squares.values()) / sum(weight.numel() for weight in floating.values())
    for name, weight in floating.items():
        if priced and squares[name]:  # `cluster` takes the price in the layer's own mean square
            options["bit_cost"] = bit_cost * mean * weight.numel() / squares[name]
        new, free = torch.zeros_like(weight), weight != 0
        if free.any():
            count = num_clusters if priced or free.all() else num_clusters - 1
            free |= priced
            codebook, indices = cluster(weight[free], num_clusters=count, **options)
            # A float16 may round to -0.0, which would be one value more.
            new[free] = codebook.to(weight.dtype)[indices.long()] + 0.0
        weight.copy_(new)
    record_left_out(shared, unreached_weights(shared, floating.values()))
    return shared


def keep_sharing(model: nn.Module) -> Callable[[], None]:
    """Return a function that makes weights that are equal now, layer by layer, equal again.

    Call it after every optimizer step: it sets them to their mean, and zeros to zero. CompressionError
    where a layer takes more than 256 values.
    """
    sharings = []
    for name, weight in floating_weights(model).items():
        values, members, counts = _sharing(weight)
        if len(values) > MAX_CLUSTERS:
            raise CompressionError(
                f"{name}: expected at most 256 values, found {len(values)}; call share_weights first"
            )
        sharings.append((weight, members, counts, values == 0))

    @torch.no_grad()
    def share_again() -> None:
        for weight, members, counts, zero in sharings:
            # In float64: a float32 sum of a million members would lose the step.
            sums = torch.bincount(members, weights=weight.double().flatten(), minlength=len(counts))
            means = (sums / counts).masked_fill(zero, 0).to(weight.dtype)
            weight.copy_(means.index_select(0, members).view(weight.shape))

    return share_again


def fine_tune_centroids(
    model: nn.Module,
    train: Labelled,
    recipe: Recipe,
    *,
    teacher: nn.Module | None = None,
    distillation: Distillation = HINTON,
    loss: Loss | None = None,
) -> nn.Module:
    """Return a copy trained by `recipe` whose weights share values as those of `model`; zeros stay.

    Each step is projected onto the networks of the same sharing: a centroid moves by the mean of
    its members' gradients, where Han et al. 2016, section 3.3, take the sum, so that ordinary
    learning rates fit. Biases and batch norms train as usual. A `teacher` helps as in `distill`, by
    the loss `distillation`; `loss` is that of `fit`. Raises what `fit` and `distill` raise, and
    CompressionError where a layer takes more than 256 values.

    >>> from compression import Split
    >>> train = Split(torch.randn(32, 8), torch.arange(32) % 2, prepare=lambda x: x)
    >>> shared = share_weights(nn.Linear(8, 2), num_clusters=4)
    >>> recipe = Recipe(epochs=1, batch_size=16, learning_rate=0.1)
    >>> shared_values(fine_tune_centroids(shared, train, recipe))
    {'': 4}
    """
    tuned = copy_model(model)
    with taught(tuned, teacher, train, recipe, distillation, loss) as goal:
        fit(tuned, train, recipe, loss=goal, after_step=keep_sharing(tuned))
    return tuned


def shared_values(model: nn.Module) -> dict[str, int]:
    """Return how many distinct values each layer's weight takes, by the layer's dotted name.

    Where a layer has several weights, each goes by its own name.

    >>> shared_values(nn.Sequential(nn.Linear(8, 4)))
    {'0': 32}
    """
    return {w.label: len(_sharing(w.tensor)[0]) for w in weights(model, tied=True)}


def _sharing(weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the weight's distinct values (k,), each weight's index (n,), and the counts (k,)."""
    # -0.0 + 0.0 is 0.0: finite numbers are then equal where their bits are.
    return torch.unique(weight.detach().flatten() + 0.0, return_inverse=True, return_counts=True)


def floating_weights(model: nn.Module) -> dict[str, Tensor]:
    """Return the weights that are shared, a tied one once, by a layer's name."""
    floating = {weight.label: weight.tensor for weight in weights(model)}
    for name, weight in floating.items():
        if not weight.is_floating_point():
            raise UnsupportedTypeError(f"{name}: expected floating weights, found {weight.dtype}")
        if not torch.isfinite(weight.float()).all():
            raise CompressionError(
                f"{name}: found weights beyond float32, in which values are shared"
            )
    return floating
