"""A speed-up is measured again where it misses its target, is lost, or is noise."""

from collections.abc import Callable
from typing import Any

from benchmarks.facts.record import Facts
from benchmarks.gate.evidence import comparison_problem
from benchmarks.gate.rules import noise, speed_up_regression
from benchmarks.timing.speed_up import Pairs, latency_facts

ATTEMPTS = 3
TRIES = 2
"""Attempts without noise that decide: one alone may be chance."""


def measure_speed_up(
    measure: Callable[[int], Pairs], *, target: float | None, then: Facts | None
) -> tuple[Pairs, dict[str, Any], bool | None]:
    """Return the pairs that count, their facts, and whether the target is met.

    `measure` takes the attempt's number; `then` is the history's entry. Met is None where there is no
    target, or where a busy machine missed it: that says nothing of the technique.
    """
    tries = 0
    for attempt in range(ATTEMPTS):
        pairs = measure(attempt)
        facts = latency_facts(pairs)
        met = None if target is None else bool(facts["speed_up_high"] >= target)
        slower = then and not comparison_problem(facts, then) and speed_up_regression(facts, then)
        noisy = noise(facts)
        tries += not noisy
        if not noisy and (tries == TRIES or (met is not False and not slower)):
            break
    return pairs, facts, None if noisy and not met else met
