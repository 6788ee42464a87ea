"""Can the facts of a benchmark be believed, those of a saved run and those of this one?

A NaN loses no comparison, and a count that contradicts its record wins every one. So the gate looks
at both sides before it compares them.
"""

import reprlib
from typing import Any

from torch import Tensor

from benchmarks.facts.record import Facts, decode_images
from benchmarks.facts.schema import FACTS
from benchmarks.facts.scores import STEPS, decode_scores

REQUIRED: dict[str, tuple[str, ...]] = {
    "size": ("stored_bytes",),
    "accuracy": ("total", "correct"),  # in this order: one bounds the other
    "score": ("total", "score", "score_name", "score_unit", "higher_is_better"),
    "latency": ("speed_up", "speed_up_low", "speed_up_high"),
}
TEXTS = frozenset({"score_name", "score_unit"})
"""Facts that it says, and compares."""
LARGEST = 1e15
"""No count of bytes, seconds or ratio is more; larger integers overflow in the computations."""
MOST_IMAGES = 10**9
SAME_SCORE = ("score_name", "score_unit", "higher_is_better", "total")
"""What two scores have in common that can be compared."""
ROUNDING = 1e-6
READ = frozenset({
    "stored_bytes", "baseline_stored_bytes", "parameters", "nonzeros", "macs",
    "correct", "total", "accuracy", "score", "score_error", "higher_is_better",
    "speed_up", "speed_up_low", "speed_up_high", "latency_ms", "num_threads", "preempted", "noisy",
})  # fmt: skip
"""The facts that the gate computes with; benchmarks/facts/schema.py says what each may be."""


def comparison_problem(now: Facts, then: Facts) -> str | None:
    """Return why two entries cannot be compared, None where they can."""
    metric, other = now.get("metric"), then.get("metric")
    if metric != other and any(str(m) in REQUIRED for m in (metric, other)):
        return f"measures {shorten(metric)}, the history {shorten(other)}"
    for where, facts in (("this run", now), ("the history", then)):
        if why := damage(facts):
            return f"{where} has {why}"
    if metric == "accuracy" and now["total"] != then["total"]:
        return f"accuracy on {now['total']} images cannot be compared with {then['total']}"
    if metric == "score" and (differing := [k for k in SAME_SCORE if now[k] != then[k]]):
        found = ", ".join(f"{k} is {shorten(now[k])}, was {shorten(then[k])}" for k in differing)
        return f"scores of other kinds cannot be compared: {found}"
    return None


def damage(facts: Facts) -> str | None:
    """Return which field of a gated metric cannot be used, None where all can."""
    metric = facts.get("metric")
    if not isinstance(metric, str) or metric not in REQUIRED:
        return None
    for name in REQUIRED[metric]:
        if name not in facts:
            return f"no {name}"
    for name in facts:
        if name in TEXTS and not isinstance(facts[name], str):
            return f"a {name} of {shorten(facts[name])}"
        if name in READ and not _is_usable(name, facts[name]):
            return f"a {name} of {shorten(facts[name])}"
    checks = {"size": _size, "accuracy": _accuracy, "score": _score, "latency": _latency}
    return checks[metric](facts)


def images_of(facts: Facts) -> Tensor:
    """Return which images were correct; ValueError where the record contradicts the count."""
    images = decode_images(facts["correct_images"], facts["total"])
    if int(images.sum()) != facts["correct"]:
        raise ValueError(f"{facts['correct']} images are correct, its record says {images.sum()}")
    return images


def is_number(value: Any, *, least: float = 0.0) -> bool:
    """Tell whether `value` is a number that can be computed with; NaN and true are not."""
    usable = isinstance(value, int | float) and not isinstance(value, bool)
    return usable and least <= value <= LARGEST


def shorten(value: Any) -> str:
    """Return a value as a short text for a sentence, however large or deep it is."""
    return reprlib.repr(value)


def _is_usable(name: str, value: Any) -> bool:
    if not FACTS[name].holds(value):
        return False
    return value <= (MOST_IMAGES if name == "total" else LARGEST)  # type: ignore[no-any-return]


def _size(facts: Facts) -> str | None:
    parameters, nonzeros = (facts.get(name, 0) for name in ("parameters", "nonzeros"))
    return f"{nonzeros} nonzeros of {parameters} parameters" if nonzeros > parameters else None


def _accuracy(facts: Facts) -> str | None:
    correct, total = facts["correct"], facts["total"]
    if correct > total:
        return f"a correct of {correct}"
    try:
        if "correct_images" in facts:
            images_of(facts)
    except ValueError as error:
        return f"a correct_images that cannot be used: {error}"
    share = facts.get("accuracy")
    if share is not None and abs(share - correct / total) > ROUNDING:
        return f"an accuracy of {share} beside {correct} of {total} correct"
    return None


def _score(facts: Facts) -> str | None:
    if "scores" not in facts:
        return None
    try:
        values = decode_scores(facts["scores"], facts["total"])
    except ValueError as error:
        return f"a scores that cannot be used: {error}"
    mean, span = float(values.mean()), float(values.max() - values.min())
    if abs(mean - facts["score"]) > ROUNDING * max(abs(mean), 1.0) + span / STEPS:
        return f"a score of {facts['score']} beside scores whose mean is {mean:.6g}"
    return None


def _latency(facts: Facts) -> str | None:
    low, value, high = (facts[f"speed_up{end}"] for end in ("_low", "", "_high"))
    if low * (1 - ROUNDING) <= value <= high * (1 + ROUNDING):
        return None
    return f"a speed_up of {value} outside its interval of {low} to {high}"
