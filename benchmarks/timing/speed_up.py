"""Speed-up as a ratio of interleaved times, with its uncertainty.

An absolute time moves by 8% and more between runs on a shared machine; the ratio of the lower
quartiles of 80 interleaved pairs holds within 4%.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from benchmarks.machine.cuda_flags import tf32_matmul
from benchmarks.timing.clock import Timer
from benchmarks.timing.preemption import Waits, count_waits, wait_s
from compression.errors import CompressionError

MAX_PAIRS = 80
MIN_PAIRS = 12
WARMUP_PAIRS = 3
RESAMPLES = 1000
MAX_WAIT_SHARE = 0.1
"""Of a round: one that waited longer for a core is preempted; to wake a thread takes less."""
SHORT_S = 0.25
MAX_SHORT_PAIRS = 5
"""Times as many pairs of short predictions, until SHORT_S is spent: a burst of noise is longer."""
PATIENCE_S = 1.5
"""Or the budget where that is more: the time after which too few undisturbed pairs are accepted."""


@dataclass(frozen=True, slots=True)
class Pairs:
    """Seconds of the baseline and of the technique, pair by pair.

    `preempted` counts the pairs in which another process took the core; None: they were not counted.
    These pairs are left out. Where too few would be left, all are kept and `noisy` is true.
    """

    baseline_s: tuple[float, ...]
    technique_s: tuple[float, ...]
    preempted: int | None = None
    noisy: bool = False


@dataclass(frozen=True, slots=True)
class SpeedUp:
    """How many times faster than the baseline, with its 95% bootstrap interval."""

    value: float
    low: float
    high: float


def interleave(
    baseline: Timer,
    technique: Timer,
    *,
    seed: int,
    budget_s: float,
    max_pairs: int = MAX_PAIRS,
    warmup_s: float = 0.0,
    after_pair: Callable[[], object] = lambda: None,
) -> Pairs:
    """Time the two in pairs, in random order within a pair: 80, or fewer when the budget is spent.

    - Short predictions: up to five times as many, a quarter of a second in all.
    - At least 12 in any case, and a wider interval then says so.
    - The first three, and those of the first `warmup_s`, warm up and are dropped.
    - Preempted pairs are replaced by others while patience lasts.
    - `after_pair` is called between pairs, which it must not disturb.
    """
    if max_pairs < 1:
        raise CompressionError(f"max_pairs must be at least 1, found {max_pairs}")
    random = np.random.default_rng(seed)
    _warm_up(baseline, technique, warmup_s)
    least, started = min(MIN_PAIRS, max_pairs), time.perf_counter()
    all_pairs: list[_Pair] = []
    kept: list[_Pair] = []
    kept_s = 0.0
    with count_waits() as read:  # warm by now: the threads of the pools exist
        while len(kept) < max_pairs * (MAX_SHORT_PAIRS if kept_s < SHORT_S else 1):
            limit_s = budget_s if len(kept) >= least else max(budget_s, PATIENCE_S)
            if time.perf_counter() - started >= limit_s and len(all_pairs) >= least:
                break
            pair = _time_pair(baseline, technique, read, baseline_first=random.random() < 0.5)
            all_pairs.append(pair)
            after_pair()
            if not pair.preempted:
                kept.append(pair)
                kept_s += pair.baseline_s + pair.technique_s
    noisy = len(kept) < least
    pairs = all_pairs if noisy else kept
    times = (tuple(pair.baseline_s for pair in pairs), tuple(pair.technique_s for pair in pairs))
    return Pairs(*times, preempted=len(all_pairs) - len(kept), noisy=noisy)


@dataclass(frozen=True, slots=True)
class _Pair:
    baseline_s: float
    technique_s: float
    preempted: bool


def _warm_up(baseline: Timer, technique: Timer, warmup_s: float) -> None:
    started, pairs = time.perf_counter(), 0
    while pairs < WARMUP_PAIRS or time.perf_counter() - started < warmup_s:
        baseline(), technique()
        pairs += 1


def _time_pair(
    baseline: Timer, technique: Timer, read: Callable[[], Waits], *, baseline_first: bool
) -> _Pair:
    timers = (baseline, technique) if baseline_first else (technique, baseline)
    seconds, preempted = [], False
    for timer in timers:
        before = read()
        seconds.append(timer())
        preempted |= wait_s(before, read()) > MAX_WAIT_SHARE * seconds[-1]
    first, second = seconds
    return _Pair(*((first, second) if baseline_first else (second, first)), preempted)


def speed_up(pairs: Pairs, *, seed: int = 0) -> SpeedUp:
    """Return q25(baseline) / q25(technique) and its 95% interval over resampled pairs."""
    times = np.array([pairs.baseline_s, pairs.technique_s])
    if times.shape[1] == 0 or not (np.isfinite(times) & (times > 0)).all():
        raise CompressionError("a speed-up needs at least one pair of times above 0")
    resamples = np.random.default_rng(seed).integers(
        times.shape[1], size=(RESAMPLES, times.shape[1])
    )
    quartiles = np.quantile(times[:, resamples], 0.25, axis=2)
    low, high = np.quantile(quartiles[0] / quartiles[1], [0.025, 0.975])
    baseline, technique = np.quantile(times, 0.25, axis=1)
    value = float(baseline / technique)  # of few pairs it may lie beyond what resampling found
    return SpeedUp(value, min(value, float(low)), max(value, float(high)))


def latency_facts(pairs: Pairs) -> dict[str, Any]:
    """Return what a latency row records of its pairs: lower quartiles in ms, their ratio, settings."""
    ratio = speed_up(pairs)
    noise = {} if pairs.preempted is None else {"preempted": pairs.preempted, "noisy": pairs.noisy}
    base, own = (float(np.quantile(t, 0.25)) * 1e3 for t in (pairs.baseline_s, pairs.technique_s))
    return {
        "metric": "latency",
        "latency_ms": own,
        "baseline_latency_ms": base,
        "speed_up": ratio.value,
        "speed_up_low": ratio.low,
        "speed_up_high": ratio.high,
        "pairs": len(pairs.technique_s),
        **noise,
        "num_threads": torch.get_num_threads(),
        "tf32": tf32_matmul(),
        "cudnn_benchmark": torch.backends.cudnn.benchmark,
    }
