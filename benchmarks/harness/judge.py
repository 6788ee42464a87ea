"""Is one result worse than its history? One-sided: a better one never is."""

import math
from collections.abc import Callable
from typing import Any

from torch import Tensor

from benchmarks.harness.results import Facts, decode_images

# metric: (tolerance, its reason)
TOLERANCES = {
    "size": (0.0, "the same weights give the same bytes"),
    "size of other weights": (0.005, "a baseline trained elsewhere has other zeros to leave out"),
    "accuracy": (0.025, "one-sided level of the exact paired (McNemar) test on the same images"),
    "accuracy unpaired": (1.96, "standard errors of the difference of two binomial proportions"),
    # Within a run 80 pairs hold the ratio within 4%; between runs on a shared 2-core machine that of a
    # 5 ms prediction moved from 1.11 to 0.92 (bfloat16, batch 1) while another job ran.
    "speed-up": (0.25, "what the ratio of a short prediction moved between two runs of one commit"),
    "waking, ms": (
        0.25,
        "a prediction of 0.30 ms took 0.50 in the next run: its threads had slept",
    ),
}


def size_regression(now: Facts, then: Facts, *, same_weights: bool) -> str | None:
    """Return the sentence for a larger file, None where it is no larger."""
    rule = "size" if same_weights else "size of other weights"
    tolerance = TOLERANCES[rule][0]
    new, old = now["stored_bytes"], then["stored_bytes"]
    if new <= old * (1 + tolerance):
        return None
    return f"size {old:,} -> {new:,} bytes (+{new - old:,}; tolerance {tolerance:.1%})"


def accuracy_regression(now: Facts, then: Facts) -> str | None:
    """Return the sentence for an accuracy worse beyond chance, None where it is not."""
    total, new, old = now["total"], now["correct"], then["correct"]
    if new >= old:
        return None
    if "correct_images" in now and "correct_images" in then:
        before, after = (_images(facts) for facts in (then, now))
        lost, gained = int((before & ~after).sum()), int((after & ~before).sum())
        level = TOLERANCES["accuracy"][0]
        probability = binomial_tail(lost, lost + gained)
        worse = probability < level
        why = f"{lost} images lost, {gained} gained, p = {probability:.2g} < {level}"
    else:
        limit = TOLERANCES["accuracy unpaired"][0]
        p = (new + old) / (2 * total)
        error = math.sqrt(max(2 * p * (1 - p) / total, 1e-12))
        worse = (old - new) / total > limit * error
        why = f"beyond {limit} standard errors of {error:.2%}"
    return f"accuracy {old / total:.2%} -> {new / total:.2%} ({why})" if worse else None


def _images(facts: Facts) -> Tensor:
    images = decode_images(facts["correct_images"], facts["total"])
    if int(images.sum()) != facts["correct"]:
        raise ValueError(f"{facts['correct']} images are correct, its record says {images.sum()}")
    return images


def speed_up_regression(now: Facts, then: Facts) -> str | None:
    """Return the sentence where the whole interval is slower than history, None where it is not.

    The history's time may grow by the tolerance, and by what waking threads takes.
    """
    tolerance, waking_ms = (TOLERANCES[name][0] for name in ("speed-up", "waking, ms"))
    old_ms = then.get("latency_ms", math.inf)
    share = 1 / (1 / (1 - tolerance) + waking_ms / old_ms)
    if now["speed_up_high"] >= then["speed_up"] * share:
        return None
    interval = f"{now['speed_up_low']:.2f}..{now['speed_up_high']:.2f}"
    return f"speed-up {then['speed_up']:.2f}x -> {interval}x (tolerance {tolerance:.0%})"


def binomial_tail(successes: int, trials: int) -> float:
    """Return the probability of at least `successes` heads in `trials` fair tosses."""
    if successes * 2 <= trials:
        return 1.0
    return sum(math.comb(trials, k) for k in range(successes, trials + 1)) / 2**trials


REQUIRED: dict[str, tuple[str, ...]] = {
    "size": ("stored_bytes",),
    "accuracy": ("total", "correct"),  # in this order: one bounds the other
    "latency": ("speed_up", "speed_up_low", "speed_up_high"),
}


def comparable(now: Facts, then: Facts) -> str | None:
    """Return why two entries cannot be compared, None where they can."""
    metric = now.get("metric")
    if then.get("metric") != metric:
        return f"measures {metric!r}, the history {then.get('metric')!r}"
    for where, facts in (("this run", now), ("the history", then)):
        for name in REQUIRED.get(str(metric), ()):
            if name not in facts:
                return f"{where} has no {name}"
            if not _usable(name, facts[name], facts):
                return f"{where} has a {name} of {facts[name]!r}"
    if metric == "accuracy" and now["total"] != then["total"]:
        return f"accuracy on {now['total']} images cannot be compared with {then['total']}"
    return None


def _usable(name: str, value: Any, facts: Facts) -> bool:
    """Tell a number of the field's range from all else: a NaN would lose no comparison."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    if name.startswith("speed_up"):
        return 0 < value < math.inf
    if not isinstance(value, int):
        return False
    return 0 <= value <= facts["total"] if name == "correct" else value > 0


Rule = Callable[[Facts, Facts], str | None]


def rules(*, same_weights: bool) -> dict[str, Rule]:
    """Return the rule of each gated metric."""

    def size(now: Any, then: Any) -> str | None:
        return size_regression(now, then, same_weights=same_weights)

    return {"size": size, "accuracy": accuracy_regression, "latency": speed_up_regression}
