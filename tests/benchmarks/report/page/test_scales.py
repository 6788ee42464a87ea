"""Scales keep order and edges; their ticks are round, few and within."""

import math

from hypothesis import given
from hypothesis import strategies as st

from benchmarks.report.page.scales import MOST_TICKS, linear, logarithmic

values = st.lists(st.floats(1e-4, 1e9), min_size=1, max_size=20)


@given(values, st.booleans())
def test_order_is_kept_and_every_value_is_inside(found: list[float], log: bool) -> None:
    scale = (logarithmic if log else linear)(found, 50, 450)
    places = [scale(value) for value in sorted(found)]
    assert places == sorted(places)
    assert all(50 <= place <= 450 for place in places)


@given(values, st.booleans())
def test_ticks_are_few_and_within(found: list[float], log: bool) -> None:
    scale = (logarithmic if log else linear)(found, 0, 100)
    ticks = scale.ticks()
    assert 1 <= len(ticks) <= MOST_TICKS + 3
    assert all(scale.low <= tick <= scale.high for tick in ticks)
    assert ticks == sorted(set(ticks))


def test_ticks_are_round_and_written_with_the_decimals_that_they_need() -> None:
    scale = linear([91.3, 92.1], 0, 100)
    assert [scale.written(tick) for tick in scale.ticks()] == [
        f"{value:.1f}" for value in (91.4, 91.6, 91.8, 92.0)
    ]
    assert logarithmic([0.4, 42.7], 0, 100).ticks() == [0.5, 1, 2, 5, 10, 20, 50]


def test_a_logarithmic_scale_has_the_same_length_for_each_factor() -> None:
    scale = logarithmic([1, 100], 0, 100)
    assert math.isclose(scale(10) - scale(1), scale(100) - scale(10), abs_tol=0.2)


def test_what_is_off_scale_stands_at_the_edge() -> None:
    scale = linear([80, 90], 280, 10, pad=0)
    assert (scale(10), scale(95)) == (280, 10)
