"""Networks without the channels that are worth least."""

from collections.abc import Iterable
from typing import Any

from torch import nn

from compression.channels import Criterion, check_fraction, choose, reach
from compression.errors import CompressionError
from compression.removal.latency import Deployed, as_int8, reach_latency
from compression.training import Labelled, Loss

_BUDGETS = "macs, parameters or latency_ms"


def remove_channels(
    model: nn.Module,
    example: Any,
    *,
    macs: float | None = None,
    parameters: float | None = None,
    latency_ms: float | None = None,
    criterion: Criterion = "l2",
    batches: Iterable[Any] | Labelled | None = None,
    multiple_of: int = 16,
    at_least: float = 0.1,
    seed: int = 0,
    deployed: Deployed = as_int8,
    loss: Loss | None = None,
) -> nn.Module:
    """Return a copy of `model` without the channels that are worth least: smaller, plain layers.

    One budget says what stays: `macs` or `parameters`, a fraction of the network's own for inputs like
    `example` (a tensor, a tuple of them, or a Dataset, whose first counts), or `latency_ms`, the
    milliseconds of one prediction of the example by what `deployed` makes of a network and it; INT8
    kernels by default.

    criterion    "l2" or "l1" (the norms of filters), "fpgm", "batch-norm", "taylor", which looks at
                 `batches` of (inputs, labels), a Dataset's too, by the `loss`, that of `fit`, or
                 "random", the control, by `seed`
    multiple_of  of what the width of each layer is a multiple, unless it stays whole; the half, a
                 quarter, ... in a layer that has no more channels than that
    at_least     the fraction of each width that stays

    Channels that hang together go together, by additions, products, concatenations, shuffles, groups
    and shared layers; so do those of what the forward reads by name. The outputs keep theirs, and so
    does what cannot be followed: left_out lists the layers with the reason. The result gives what
    `model` gives with zeros in the place of what went; recalibrate_batch_norm and fine_tune repair
    it. `save` notes the widths, so that `load` with a factory of the whole network rebuilds it.

    UnsupportedTypeError for a network that torch.fx cannot trace, CompressionError for a budget out
    of reach and an example that the network cannot take. Li et al. 2017, arXiv:1608.08710; the groups
    as in Fang et al. 2023, arXiv:2301.12900.

    >>> net = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 2))
    >>> remove_channels(net, torch.randn(1, 8), macs=0.5)[0]
    Linear(in_features=8, out_features=32, bias=True)
    """
    asked = {
        name: value
        for name, value in (("macs", macs), ("parameters", parameters), ("latency_ms", latency_ms))
        if value is not None
    }
    if len(asked) != 1:
        raise CompressionError(
            f"remove_channels needs one budget, {_BUDGETS}; found {', '.join(asked) or 'none'}"
        )
    ((name, budget),) = asked.items()
    if name != "latency_ms":
        check_fraction(name, budget)
    choice = choose(
        model,
        example,
        criterion=criterion,
        batches=batches,
        multiple_of=multiple_of,
        at_least=at_least,
        seed=seed,
        loss=loss,
    )
    if name == "latency_ms":
        return reach_latency(choice, budget, deployed)
    cost, total = choice.cost_in_macs() if name == "macs" else choice.cost_in_parameters()
    return choice.cut(reach(choice, cost, name, budget, total))
