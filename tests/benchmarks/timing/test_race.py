"""Competitors run in turn, in an order that changes from round to round."""

import pytest

from benchmarks.timing.race import MIN_ROUNDS, race
from compression.errors import CompressionError


def test_everybody_runs_once_a_round_in_changing_order() -> None:
    woken: list[str] = []

    def competitor(name: str, seconds: float):
        def run() -> float:
            woken.append(name)
            return seconds

        return run

    times = race({"a": competitor("a", 1.0), "b": competitor("b", 2.0)}, budget_s=60, max_rounds=30)
    assert times == {"a": (1.0,) * 30, "b": (2.0,) * 30}
    rounds = [tuple(woken[i : i + 2]) for i in range(0, len(woken), 2)]
    assert set(rounds) == {("a", "b"), ("b", "a")}


def test_a_spent_budget_leaves_the_fewest_rounds() -> None:
    assert len(race({"a": lambda: 1.0}, budget_s=0)["a"]) == MIN_ROUNDS
    with pytest.raises(CompressionError, match="max_rounds"):
        race({}, budget_s=1, max_rounds=0)
