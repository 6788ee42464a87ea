"""When a speed-up is measured once more, and what a busy machine may say of a target."""

from dataclasses import replace
from typing import Any

import pytest

from benchmarks.timing.attempts import measure_speed_up
from benchmarks.timing.speed_up import Pairs

TWICE = Pairs((2.0,) * 20, (1.0,) * 20, preempted=0)
SAME = replace(TWICE, technique_s=(2.0,) * 20)
NOISE = replace(SAME, preempted=60, noisy=True)
THEN = {"metric": "latency", "speed_up": 2.0, "speed_up_low": 1.9, "speed_up_high": 2.1}


@pytest.mark.parametrize(
    ("found", "target", "then", "attempts", "met"),
    [
        ([TWICE], 2.0, THEN, 1, True),
        ([TWICE], None, None, 1, None),
        ([SAME, TWICE], 2.0, None, 2, True),
        ([SAME, SAME], 2.0, None, 2, False),
        ([SAME, TWICE], None, THEN, 2, None),
        ([SAME], None, {**THEN, "speed_up_low": 9.0}, 1, None),  # cannot be compared
        ([NOISE, TWICE], 2.0, None, 2, True),
        ([NOISE, SAME, SAME], 2.0, None, 3, False),
        ([SAME, NOISE, SAME], 2.0, None, 3, False),
        ([NOISE, NOISE, NOISE], 2.0, None, 3, None),
        ([NOISE, NOISE, NOISE], 1.0, None, 3, True),
    ],
)
def test_it_is_measured_until_it_holds_or_has_failed_twice(
    found: list[Pairs], target: float | None, then: Any, attempts: int, met: bool | None
) -> None:
    seen: list[int] = []

    def measure(attempt: int) -> Pairs:
        seen.append(attempt)
        return found[attempt]

    pairs, facts, reached = measure_speed_up(measure, target=target, then=then)
    assert seen == list(range(attempts))
    assert pairs is found[-1]
    assert facts["preempted"] == pairs.preempted
    assert reached is met
