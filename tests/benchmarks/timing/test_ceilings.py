"""A layer's floor follows from the card's measured rates."""

import pytest

from benchmarks.timing.ceilings import Ceilings


def test_a_floor_counts_two_operations_a_multiply_accumulate() -> None:
    card = Ceilings(bytes_per_s=3e12, int8_ops_per_s=1e15, float16_ops_per_s=5e14)
    floor = card.floor_ms(macs=10**9, moved_bytes=3 * 10**6)
    assert floor == {"bytes_ms": pytest.approx(0.001), "operations_ms": pytest.approx(0.002)}
