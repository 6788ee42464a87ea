"""Networks without their least channels, by us and by Torch-Pruning, within one budget.

The budget is a share of the multiply-accumulates. Torch-Pruning prunes a share of the channels
instead, so a search finds the share that comes closest to the budget without passing it.
"""

import copy
import importlib.util
import math
import warnings
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torchvision.models import VisionTransformer

from compression.accounting import count_macs
from compression.errors import CompressionError
from compression.removal import remove_channels

Remover = Callable[[nn.Module, Tensor, float], nn.Module]
"""Returns a copy of a network that does at most such a share of its multiply-accumulates."""

OURS = "compression"
MULTIPLE_OF = 16
AT_LEAST = 0.1
"""What both are asked: widths that are multiples of 16, and a tenth of each layer."""
SEARCHES = 12
CLOSE = 0.99
"""Of the budget: a network that uses so much of it ends the search."""


def missing_torch_pruning() -> str | None:
    """Say what is missing here, None where Torch-Pruning can run."""
    if importlib.util.find_spec("torch_pruning") is not None:
        return None
    return "needs torch_pruning: pip install -e '.[test,peers]'"


def by_compression(model: nn.Module, example: Tensor, macs: float) -> nn.Module:
    """Remove channels by `remove_channels`."""
    return remove_channels(model, example, macs=macs, multiple_of=MULTIPLE_OF, at_least=AT_LEAST)


def by_torch_pruning(model: nn.Module, example: Tensor, macs: float) -> nn.Module:
    """Remove channels by Torch-Pruning's magnitudes of groups, ranked over all layers together."""
    budget = macs * count_macs(model, example)
    prune = partial(prune_share, model, example)
    return largest_within(budget, prune, lambda smaller: count_macs(smaller, example))


REMOVERS: dict[str, Remover] = {OURS: by_compression, "torch-pruning": by_torch_pruning}


def largest_within(
    budget: float, prune: Callable[[float], nn.Module], cost: Callable[[nn.Module], float]
) -> nn.Module:
    """Return the costliest network within the budget that bisecting the pruned share finds.

    Rounded widths make steps of the cost, and a layer may even grow again where more is asked: what
    counts is the best attempt, not the last. CompressionError where none is within the budget.
    """
    low, high = 0.0, 1.0
    best, most = None, -math.inf
    for _ in range(SEARCHES):
        share = (low + high) / 2
        found = prune(share)
        reached = cost(found)
        if reached > budget:
            low = share
            continue
        high = share
        if reached > most:
            best, most = found, reached
        if most >= CLOSE * budget:
            break
    if best is None:
        raise CompressionError(f"no share of channels keeps the budget of {budget:,.0f}")
    return best


def prune_share(model: nn.Module, example: Tensor, share: float) -> nn.Module:
    """Return a copy of `model` of which Torch-Pruning has removed a share of the channels.

    Vision transformers get the help that its own test of torchvision's networks gives them.
    """
    import torch_pruning

    smaller = copy.deepcopy(model).eval()
    heads = [m.num_heads for m in smaller.modules() if isinstance(m, nn.MultiheadAttention)]
    with warnings.catch_warnings(), torch.enable_grad():  # it follows the graph of gradients
        warnings.simplefilter("ignore")
        torch_pruning.pruner.MagnitudePruner(
            smaller,
            example,
            importance=torch_pruning.importance.GroupMagnitudeImportance(p=2),
            global_pruning=True,
            pruning_ratio=share,
            max_pruning_ratio=1 - AT_LEAST,
            round_to=math.lcm(MULTIPLE_OF, *heads),
            ignored_layers=[last_layer(smaller, example)],
        ).step()
    if isinstance(smaller, VisionTransformer):  # its forward reads the width by name
        smaller.hidden_dim = smaller.conv_proj.out_channels
    return smaller


def last_layer(model: nn.Module, example: Tensor) -> nn.Module:
    """Return the layer whose channels are the outputs: the last that runs.

    >>> last_layer(nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 4)), torch.ones(1, 2))
    Linear(in_features=3, out_features=4, bias=True)
    """
    ran: list[nn.Module] = []

    def note(module: nn.Module, _inputs: object, _outputs: object) -> None:
        ran.append(module)

    layers = [m for m in model.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    hooks = [layer.register_forward_hook(note) for layer in layers]
    try:
        with torch.no_grad():
            model(example)
    finally:
        for hook in hooks:
            hook.remove()
    return ran[-1]
