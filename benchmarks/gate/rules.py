"""Is a result worse than its history? The rules are one-sided: a better result never fails."""

import math
from collections.abc import Callable
from typing import Any

from benchmarks.facts.record import Facts
from benchmarks.facts.scores import decode_scores
from benchmarks.gate.evidence import images_of
from benchmarks.gate.paired import chance_of_loss

# metric: (tolerance, its reason)
TOLERANCES = {
    "size": (0.0, "the same weights give the same bytes"),
    "size of other weights": (0.005, "a baseline trained elsewhere has other zeros to leave out"),
    "accuracy": (0.025, "one-sided level of the exact paired (McNemar) test on the same images"),
    "accuracy unpaired": (1.96, "standard errors of the difference of two binomial proportions"),
    "score": (0.025, "one-sided level of the sign-flip test on the same examples' scores"),
    "score unpaired": (1.96, "standard errors of the difference of two means"),
    "score rounding": (1e-4, "of the score: kernels and threads round differently, all one way"),
    # Within a run 80 pairs hold the ratio within 4%; between runs on a shared 2-core machine that of a
    # 5 ms prediction moved from 1.11 to 0.92 (bfloat16, batch 1) while another job ran.
    "speed-up": (0.25, "what the ratio of a short prediction moved between two runs of one commit"),
    "waking, ms": (
        0.25,
        "a prediction of 0.30 ms took 0.50 in the next run: its threads had slept",
    ),
    "waking": (
        0.35,
        "with the tolerance above it stays below twice as slow",
    ),
    "width": (2.0, "a speed-up says nothing where its interval reaches this many times as far"),
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
    if "correct_images" in now and "correct_images" in then:
        before, after = (images_of(facts) for facts in (then, now))
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


def score_regression(now: Facts, then: Facts) -> str | None:
    """Return the sentence for a score worse beyond chance and rounding, None where it is not."""
    sign = 1 if then["higher_is_better"] else -1
    lost = sign * (then["score"] - now["score"])
    if lost <= TOLERANCES["score rounding"][0] * abs(then["score"]):
        return None
    if "scores" in now and "scores" in then:
        before, after = (decode_scores(f["scores"], f["total"]) for f in (then, now))
        level = TOLERANCES["score"][0]
        probability = chance_of_loss(sign * (before - after))
        worse, why = probability < level, f"paired, p = {probability:.2g} < {level}"
    else:
        limit = TOLERANCES["score unpaired"][0]
        error = math.hypot(*(facts.get("score_error", 0.0) for facts in (then, now)))
        worse, why = lost > limit * error, f"beyond {limit} standard errors of {error:.3g}"
    return f"{score_change(now, then)} ({why})" if worse else None


def score_change(now: Facts, then: Facts) -> str:
    """Return what a score was and is."""
    before, after = (written(facts, facts["score"]) for facts in (then, now))
    return f"{then['score_name']} {before} -> {after}"


def written(facts: Facts, score: float) -> str:
    """Return a score in its unit."""
    unit = facts["score_unit"]
    return f"{score:.2%}" if unit == "%" else f"{score:.4g} {unit}".strip()


def speed_up_regression(now: Facts, then: Facts) -> str | None:
    """Return the sentence where the whole interval is below the history's, None where it is not.

    The history's time may grow by the tolerance, and by the time that it takes to wake threads.
    """
    tolerance = TOLERANCES["speed-up"][0]
    share = 1 / (1 / (1 - tolerance) + _waking(now, then))
    if now["speed_up_high"] >= then.get("speed_up_low", then["speed_up"]) * share:
        return None
    interval = f"{now['speed_up_low']:.2f}..{now['speed_up_high']:.2f}"
    return f"speed-up {then['speed_up']:.2f}x -> {interval}x (tolerance {tolerance:.0%})"


def _waking(now: Facts, then: Facts) -> float:
    """Return the share of the history's time that it may take to wake threads: 0 with one thread."""
    if max(facts.get("num_threads", 2) for facts in (now, then)) == 1:
        return 0.0
    waking_ms, most = (TOLERANCES[name][0] for name in ("waking, ms", "waking"))
    return min(waking_ms / then.get("latency_ms", math.inf), most)


def noise(facts: Facts) -> str | None:
    """Return why the time of a benchmark is only advice, None where it is evidence."""
    if facts.get("metric") != "latency":
        return None
    if facts.get("noisy"):
        return "other processes took the core in too many of its rounds"
    low, value, high = (facts[f"speed_up{end}"] for end in ("_low", "", "_high"))
    if max(value / low, high / value) > TOLERANCES["width"][0]:
        return f"its speed-up lies anywhere in {low:.2f}..{high:.2f}x"
    return None


def control_is_off(facts: Facts) -> bool:
    """Tell whether the control row, the baseline against itself, is not about 1."""
    if facts.get("metric") != "latency" or facts.get("technique") != "baseline":
        return False
    share = 1 - TOLERANCES["speed-up"][0]
    return bool(facts["speed_up_high"] < share or facts["speed_up_low"] > 1 / share)


def binomial_tail(successes: int, trials: int) -> float:
    """Return the probability of at least `successes` heads in `trials` fair tosses."""
    if successes * 2 <= trials:
        return 1.0
    return sum(math.comb(trials, k) for k in range(successes, trials + 1)) / 2**trials


Rule = Callable[[Facts, Facts], str | None]


def rules(*, same_weights: bool) -> dict[str, Rule]:
    """Return the rule of each gated metric."""

    def size(now: Any, then: Any) -> str | None:
        return size_regression(now, then, same_weights=same_weights)

    return {
        "size": size,
        "accuracy": accuracy_regression,
        "score": score_regression,
        "latency": speed_up_regression,
    }
