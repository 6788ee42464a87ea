"""Points: intervals that are Wilson's, fronts that nothing beats, kinds of every technique."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.report.page.points import KINDS, front, kind_name, kind_of, points_of, wilson
from benchmarks.techniques import TECHNIQUES
from tests.support.made_up import channels_sweep, default_run


@given(st.integers(1, 10_000), st.data())
def test_an_interval_holds_its_share_and_stays_within_0_and_1(
    total: int, data: st.DataObject
) -> None:
    correct = data.draw(st.integers(0, total))
    low, high = wilson(correct, total)
    assert 0 <= low <= correct / total + 1e-12
    assert correct / total - 1e-12 <= high <= 1


def test_an_interval_is_the_one_of_the_books() -> None:
    # Brown, Cai and DasGupta 2001 tabulate none; 9 of 10 is in most textbooks: 0.596 to 0.982.
    assert wilson(9, 10) == pytest.approx((0.5958, 0.9821), abs=1e-4)


@pytest.mark.parametrize("how", [None, ("wall", 1)])
def test_nothing_beats_the_front_and_the_front_beats_the_rest(how: tuple[str, int] | None) -> None:
    points = [p for p in points_of(default_run()) if p.along(how) is not None]
    sign = 1 if how is None else -1
    best = front(points, how)

    def beaten(point):
        return any(
            sign * other.along(how) <= sign * point.along(how)
            and other.accuracy.percent > point.accuracy.percent
            for other in points
        )

    assert len(best) > 1
    assert not any(beaten(point) for point in best)
    assert all(
        beaten(p) or any(p.along(how) == b.along(how) or p.accuracy == b.accuracy for b in best)
        for p in points
        if p not in best
    )


def test_a_row_without_a_latency_to_claim_is_on_no_front_of_speed() -> None:
    points = points_of(default_run())
    simulated = next(point for point in points if point.name == "static-int8")
    assert simulated.along(("wall", 1)) is None
    assert simulated not in front(points, ("wall", 1))


def test_the_sweep_is_no_technique() -> None:
    assert len(points_of([*default_run(), *channels_sweep()])) == len(points_of(default_run()))


@pytest.mark.parametrize(
    ("technique", "kind"),
    [
        ("baseline", "baseline"),
        ("openvino-int8-nncf", "other engine"),
        ("compression-int8-native", "quantization"),
        ("channels-25-int8-coded", "coded or shared"),
        ("float16-channels-last", "float format"),
        ("2-of-4-float16", "pruning"),
        ("compression-50-tuned", "fewer channels"),
        ("my-own", "other"),
    ],
)
def test_a_name_tells_the_kind(technique: str, kind: str) -> None:
    assert kind_name(kind_of(technique)) == kind


def test_each_technique_of_the_suite_is_of_a_kind() -> None:
    assert [str(t) for t in TECHNIQUES if kind_of(str(t)) == len(KINDS)] == []
