"""A speed-up is measured once more where the first time says that it is missed, lost or noise."""

from collections.abc import Callable
from typing import Any

from benchmarks.facts.record import Facts
from benchmarks.gate.evidence import comparison_problem
from benchmarks.gate.rules import noise, speed_up_regression
from benchmarks.timing.speed_up import Pairs, latency_facts

ATTEMPTS = 3
TRIES = 2
"""Of the attempts, those that are no noise: one alone may be chance."""


def measure_speed_up(
    measure: Callable[[int], Pairs], *, target: float | None, then: Facts | None
) -> tuple[Pairs, dict[str, Any], bool | None]:
    """Return the pairs that count, their facts, and whether the target is met.

    `measure` takes the attempt's number; `then` is the history's entry. None for a target that there
    is not, or that a busy machine has missed: that says nothing of it.
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
