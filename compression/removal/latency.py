"""A budget in milliseconds: a table of layers, timed as they are deployed, and the whole network."""

import statistics
import time
from bisect import bisect_left
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from compression.channels import Choice, Cost, Count, Counter, Product, Term
from compression.errors import CompressionError
from compression.integer import deploy
from compression.layers import CONVOLUTIONS, TRANSPOSED
from compression.modes import evaluating
from compression.quantization import quantize_static

Deployed = Callable[[nn.Module, Any], nn.Module]
"""Makes of a network what predicts inputs like the example."""

FRACTIONS = (0.25, 0.5, 1.0)
"""Of a layer's channels: the widths that are timed; those between are interpolated."""
TRIES = 6
CLOSE = 0.95
"""A network that takes at least so much of the budget is not made larger again."""
_ROUNDS, _SECONDS = 25, 0.3


def as_int8(model: nn.Module, example: Any) -> nn.Module:
    """Return `model` in INT8, calibrated on the example, on the fastest kernels of this machine."""
    return deploy(quantize_static(model, example), example)


def reach_latency(choice: Choice, budget_ms: float, deployed: Deployed) -> nn.Module:
    """Return the widest network found whose prediction takes at most `budget_ms` as deployed.

    The table chooses the widths; the network that they give is timed, and the table's sum corrected
    by that, until the time is within the budget and close to it. A network that needs no removal
    comes back as a copy.
    """
    if isinstance(budget_ms, bool) or not isinstance(budget_ms, int | float) or not budget_ms > 0:
        raise CompressionError(f"latency_ms must be above 0, found {budget_ms!r}")
    whole_ms = _time_ms(choice.model, choice, deployed)
    nothing = torch.zeros(len(choice.channels.labels), dtype=torch.bool)
    if whole_ms <= budget_ms:
        return choice.cut(nothing)
    cost = table_cost(choice, deployed)
    scale = whole_ms / cost.of([len(width.units) for width in choice.widths])
    best: tuple[float, nn.Module] | None = None
    target, fastest = budget_ms, whole_ms
    for _ in range(TRIES):
        gone, _ = choice.select(cost, target / scale)
        smaller = choice.cut(gone)
        ms = _time_ms(smaller, choice, deployed)
        fastest = min(fastest, ms)
        if ms <= budget_ms and (best is None or ms > best[0]):
            best = ms, smaller
        if best is not None and best[0] >= CLOSE * budget_ms:
            break
        target *= (1 + CLOSE) / 2 * budget_ms / ms
    if best is None:
        raise CompressionError(
            f"latency_ms={budget_ms:g} is out of reach: the whole network takes {whole_ms:.3g} ms, the "
            f"fastest of {TRIES} smaller ones {fastest:.3g} ms with at least {choice.at_least:g} of "
            "each layer's channels; ask for more, or lower at_least"
        )
    return best[1]


def table_cost(choice: Choice, deployed: Deployed) -> Cost:
    """Return the sum of the layers' milliseconds as a function of the widths that stay."""
    counter = Counter(choice.channels, choice.widths)
    timed: dict[Any, float] = {}
    terms = []
    for product in choice.channels.products:
        sides = [product.outputs] if product.inputs is None else [product.outputs, product.inputs]
        counts = tuple(map(counter.count, sides))
        grids = [_grid(count, counter.sizes) for count in counts]
        time_ms = partial(_layer_ms, choice, product, deployed, timed)
        table = {key: time_ms(key) for key in _corners(grids)}
        terms.append(Term(counts, partial(_interpolate, grids, table)))
    return Cost(terms)


def _grid(count: Count, sizes: list[int]) -> list[int]:
    """Return the numbers of channels that are timed, where so many units of each width are whole."""
    return sorted({count.of([max(1, round(f * size)) for size in sizes]) for f in FRACTIONS})


def _corners(grids: list[list[int]]) -> list[tuple[int, ...]]:
    found: list[tuple[int, ...]] = [()]
    for grid in grids:
        found = [(*key, count) for key in found for count in grid]
    return found


def _interpolate(
    grids: list[list[int]], table: dict[tuple[int, ...], float], counts: tuple[int, ...]
) -> float:
    """Return the milliseconds between the timed widths, linear in each; below the least: its own."""
    weighted: list[tuple[tuple[int, ...], float]] = [((), 1.0)]
    for grid, count in zip(grids, counts, strict=True):
        high = min(max(bisect_left(grid, count), 1), len(grid) - 1) if len(grid) > 1 else 0
        low = max(high - 1, 0)
        span = grid[high] - grid[low]
        part = min(max((count - grid[low]) / span, 0.0), 1.0) if span else 1.0
        ends = [(grid[low], 1 - part), (grid[high], part)]
        weighted = [((*key, end), w * p) for key, w in weighted for end, p in ends if p]
    return sum(table[key] * weight for key, weight in weighted)


def _layer_ms(
    choice: Choice,
    product: Product,
    deployed: Deployed,
    timed: dict[Any, float],
    counts: tuple[int, ...],
) -> float:
    """Return the milliseconds of a layer of so many outputs and inputs of a group, timed once."""
    like: Any = choice.model.get_submodule(product.module)
    if isinstance(like, nn.Linear):
        outputs, inputs = counts if len(counts) == 2 else (like.out_features, like.in_features)
        layer: nn.Module = nn.Linear(inputs, outputs, bias=like.bias is not None)
        shape = (*product.shape[:-1], inputs)
        if len(counts) == 1:  # over another axis than that of the channels, which pass
            passing = shape.index(len(product.outputs))
            shape = (*shape[:passing], counts[0], *shape[passing + 1 :])
    else:
        layer, shape = _convolution(like, product, counts)
    key = str(layer), shape
    if key not in timed:
        parameter = next(choice.model.parameters())
        numbers = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(parameter)
        network = nn.Sequential(layer).to(parameter).eval()
        timed[key] = time_ms(deployed(network, numbers), (numbers,))
    return timed[key]


def _convolution(
    like: Any, product: Product, counts: tuple[int, ...]
) -> tuple[nn.Module, tuple[int, ...]]:
    outputs, groups = counts[0], like.groups
    if len(counts) == 2:
        inputs = counts[1] * groups
    else:  # groups of one channel
        each = like.out_channels // groups
        groups = inputs = max(1, outputs // each)
        outputs = groups * each
    axis = len(product.shape) - 1 - len(like.kernel_size)
    shape = (*product.shape[:axis], inputs, *product.shape[axis + 1 :])
    options = {
        name: getattr(like, name) for name in ("stride", "padding", "dilation", "padding_mode")
    }
    if isinstance(like, TRANSPOSED):
        options["output_padding"] = like.output_padding
    kind = next(k for k in (*CONVOLUTIONS, *TRANSPOSED) if type(like) is k)
    bias = like.bias is not None
    return kind(inputs, outputs, like.kernel_size, groups=groups, bias=bias, **options), shape


def _time_ms(model: nn.Module, choice: Choice, deployed: Deployed) -> float:
    example = choice.example if len(choice.example) > 1 else choice.example[0]
    try:
        network = deployed(model, example)
    except CompressionError as error:
        raise CompressionError(
            f"latency_ms times the network as it is deployed, and it cannot be ({error}); pass what "
            "is to be timed, as deployed=lambda model, example: model for float"
        ) from error
    return time_ms(network, choice.example)


@torch.no_grad()
def time_ms(network: nn.Module, example: tuple[Any, ...]) -> float:
    """Return the median milliseconds of a prediction of the example."""
    device = next((x.device for x in example if isinstance(x, Tensor)), torch.device("cpu"))
    times: list[float] = []
    with evaluating(network):
        for _ in range(3):
            network(*example)
        started = time.perf_counter()
        while (len(times) < _ROUNDS and time.perf_counter() - started < _SECONDS) or len(times) < 5:
            _wait(device)
            before = time.perf_counter()
            network(*example)
            _wait(device)
            times.append(time.perf_counter() - before)
    return statistics.median(times) * 1e3


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
