"""A codebook for a tensor: k-means of its values, and with a price on bits."""

import math
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from compression.checks import is_whole
from compression.errors import CompressionError, UnsupportedTypeError

MAX_CLUSTERS = 256  # what an index of one byte can name
Init = Literal["linear", "density", "random"]
INITS: tuple[Init, ...] = get_args(Init)
Array = NDArray[Any]


def initial_centroids(values: Tensor, *, num_clusters: int, init: Init, seed: int = 0) -> Tensor:
    """Return where k-means on `values` (n,) starts: centroids (num_clusters,), float64, ascending.

    "linear": evenly from the smallest to the largest value; "density": the quantiles at
    (i + 0.5) / num_clusters; "random": values drawn by `seed`, distinct while there are enough
    (Han et al. 2016, section 3.2).
    """
    check_options(num_clusters, init, seed)
    return torch.from_numpy(_initial_centers(np.sort(_numbers(values)), num_clusters, init, seed))


def cluster(
    values: Tensor,
    *,
    num_clusters: int,
    init: Init = "linear",
    seed: int = 0,
    bit_cost: float = 0.0,
    zero: bool = False,
    iterations: int = 1000,
    start: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Return a codebook (k,), float32, ascending, and each value's index in it, uint8 as `values`.

    Lloyd's algorithm from `initial_centroids`, until nothing moves or for `iterations`, and from
    there once more with the price: a value w goes to the i that minimises (w - c_i)^2 + bit_cost *
    mean(w^2) * bits_i, with bits_i = -log2 of the share of cluster i one iteration earlier, and c_i
    is its mean. k is at most `num_clusters`: empty clusters are dropped. `zero` pins one to 0.0,
    which zeros never leave. Up to `num_clusters` distinct values stay as they are at bit_cost 0.
    `start` gives the centroids (k,) to begin from in place of `init`, as a codebook of earlier values.
    """
    check_options(num_clusters, init, seed, bit_cost, iterations)
    first = None if start is None else _check_start(start, num_clusters)
    flat = _numbers(values)
    ordered = np.sort(flat[flat != 0] if zero else flat).astype(np.float64)
    if not len(ordered):
        return torch.zeros(1, device=values.device), torch.zeros_like(values, dtype=torch.uint8)
    centers = _start(ordered, num_clusters, init, seed, zero, first)
    # Finite even for the largest numbers, and still above every squared distance of float32.
    price = min(bit_cost * float(ordered @ ordered) / len(flat), 1e200)
    zeros = len(flat) - len(ordered)
    # The price is asked from where the error alone is least: it never makes the sum of both worse.
    for cost in sorted({0.0, price}):
        centers, edges, codes = _lloyd(ordered, centers, cost, zero, zeros, iterations)
    cells = torch.bucketize(torch.from_numpy(flat).double(), torch.from_numpy(edges))
    indices = torch.from_numpy(codes).index_select(0, cells)
    if zero:
        indices[torch.from_numpy(flat == 0)] = int(codes[-1])
    codebook = torch.from_numpy(centers).float()
    return codebook.to(values.device), indices.view(values.shape).to(values.device)


def check_options(
    num_clusters: int,
    init: Init,
    seed: int,
    bit_cost: float = 0.0,
    iterations: int = 1,
    fewest: int = 1,
) -> None:
    """Refuse options of k-means that are out of their ranges."""
    if not is_whole(seed):
        raise CompressionError(f"seed must be a whole number, found {seed!r}")
    if not is_whole(num_clusters) or not fewest <= num_clusters <= MAX_CLUSTERS:
        raise CompressionError(f"num_clusters must lie in {fewest}..256, found {num_clusters!r}")
    if init not in INITS:
        raise CompressionError(f"init must be one of {', '.join(INITS)}, found {init!r}")
    if type(bit_cost) not in (float, int) or not (math.isfinite(bit_cost) and bit_cost >= 0):
        raise CompressionError(f"bit_cost must be finite and at least 0, found {bit_cost!r}")
    if not is_whole(iterations) or iterations < 1:
        raise CompressionError(f"iterations must be at least 1, found {iterations!r}")


def _numbers(values: Tensor) -> Array:
    kind = getattr(values, "dtype", type(values).__name__)
    if not isinstance(values, Tensor) or not values.is_floating_point():
        raise UnsupportedTypeError(f"values: expected floating numbers, found {kind}")
    flat = values.detach().reshape(-1).float().cpu().numpy()
    finite = int(np.isfinite(flat).sum())
    if finite < max(len(flat), 1):
        raise CompressionError(f"values: expected finite float32, found {finite} of {len(flat)}")
    return flat


def _initial_centers(ordered: Array, count: int, init: Init, seed: int) -> Array:
    if init == "linear":
        return np.linspace(float(ordered[0]), float(ordered[-1]), count)
    if init == "density":
        places = (np.arange(count) + 0.5) / count * len(ordered)
        return ordered[places.astype(np.int64)].astype(np.float64)
    distinct = np.unique(ordered)
    order = torch.randperm(len(distinct), generator=torch.Generator().manual_seed(seed)).numpy()
    return np.sort(np.resize(distinct[order], count)).astype(np.float64)


def _check_start(start: Tensor, num_clusters: int) -> Array:
    first = _numbers(start).astype(np.float64)
    if len(first) > num_clusters:
        raise CompressionError(
            f"start: expected at most {num_clusters} centroids, found {len(first)}"
        )
    return first


def _start(
    ordered: Array, num_clusters: int, init: Init, seed: int, zero: bool, first: Array | None
) -> Array:
    """Return the first iteration's centers: the values themselves where they are few enough."""
    free, distinct = num_clusters - zero, ordered[np.diff(ordered, prepend=-np.inf) > 0]
    centers = first
    if len(distinct) <= free:
        centers = distinct
    elif centers is None:
        centers = _initial_centers(ordered, free, init, seed)
    return np.unique(np.append(centers, [0.0] * zero))


def _lloyd(
    ordered: Array, centers: Array, price: float, zero: bool, zeros: int, iterations: int
) -> tuple[Array, Array, Array]:
    """Return the codebook, the cells' inner edges, and the cells' codes with that of zeros last."""
    prefix = np.append(0.0, np.cumsum(ordered))
    counts = np.ones(len(centers))  # equal shares: the first cells are those of the nearest center
    for _ in range(iterations):
        before = centers, counts
        kept, edges = _envelope(centers, -price * np.log2(counts / (len(ordered) + zeros)))
        centers, counts, codes = _means(ordered, prefix, edges, zero & (centers[kept] == 0), zeros)
        if np.array_equal(before[0], centers) and np.array_equal(before[1], counts):
            break
    return centers, edges, codes


def _envelope(centers: Array, costs: Array) -> tuple[list[int], Array]:
    """Return which centers are cheapest somewhere, and the edges between them, both ascending.

    (w - c)^2 + cost is w^2 plus a line of w whose slope falls with c: the lower envelope of lines.
    """
    c, cost = centers.tolist(), costs.tolist()

    def between(i: int, j: int) -> float:
        return (c[i] + c[j]) / 2 + (cost[j] - cost[i]) / (2 * (c[j] - c[i]))

    kept, edges = [0], [-math.inf]
    for j in range(1, len(c)):
        while (edge := between(kept[-1], j)) <= edges[-1]:
            del kept[-1], edges[-1]
        kept.append(j)
        edges.append(edge)
    return kept, np.array(edges[1:])


def _means(
    ordered: Array, prefix: Array, edges: Array, pinned: Array, zeros: int
) -> tuple[Array, Array, Array]:
    """Return the codebook, its counts, and the cells' codes with that of zeros last."""
    cuts = np.concatenate([[0], np.searchsorted(ordered, edges, side="right"), [len(ordered)]])
    full = np.diff(cuts) > 0
    starts, stops = cuts[:-1][full], cuts[1:][full]
    means = (prefix[stops] - prefix[starts]) / (stops - starts)
    # Beside far larger values the prefix sums lose a cell's own: its mean is still within it.
    means = np.clip(means, ordered[starts], ordered[stops - 1]).astype(np.float32)
    means[pinned[full]] = 0
    live = np.append(full, zeros > 0)
    codes = np.zeros(len(live), dtype=np.uint8)
    # A mean may be zero too, or lie on the other side of the pinned zero: one value, in order.
    codebook, codes[live] = np.unique(np.append(means, [0.0] * (zeros > 0)), return_inverse=True)
    sizes = np.append(stops - starts, [zeros] * (zeros > 0))
    return codebook.astype(np.float64) + 0.0, np.bincount(codes[live], weights=sizes), codes
