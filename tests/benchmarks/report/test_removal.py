"""The figure of removed channels: what is drawn where, and what it needs."""

from collections.abc import Callable
from typing import Any

import pytest
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure

from benchmarks.report.removal import macs_accuracy
from tests.support.made_up import REMOVALS, channels_sweep, default_run

Facts = dict[str, Any]
FULL = [*default_run(), *channels_sweep()]


def drawn(facts: list[Facts]) -> Figure:
    figure = macs_accuracy(facts)
    assert isinstance(figure, Figure)
    return figure


def points(figure: Figure, side: int) -> dict[str, list[tuple[float, float]]]:
    """Return the points of each line on one side, by its label."""
    found: dict[str, list[tuple[float, float]]] = {}
    for container in figure.axes[side].containers:
        assert isinstance(container, ErrorbarContainer)
        line = container.lines[0]
        assert line is not None
        xs, ys = ([float(v) for v in values] for values in line.get_data())
        found[str(container.get_label())] = [
            (round(x, 2), round(y, 2)) for x, y in zip(xs, ys, strict=True)
        ]
    return found


def legend(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


def like(name: str, other: str, **values: Any) -> list[Facts]:
    """Return the facts of a technique under another name."""
    return [f | {"technique": name} | values for f in FULL if f["technique"] == other]


def test_a_family_stands_at_what_stays_and_at_its_time_of_the_smallest_batch() -> None:
    figure = drawn(FULL)
    sizes, times = points(figure, 0), points(figure, 1)
    assert list(sizes) == ["channels", "random-channels (control)", "small-dense (control)"]
    assert [x for x, _ in sizes["channels"]] == [12.5, 25.0, 35.0, 50.0, 75.0]
    for share, (ms, accuracy), (_, beside) in zip(
        (0.125, 0.25, 0.35, 0.5, 0.75), times["channels"], sizes["channels"], strict=True
    ):
        assert ms == pytest.approx(14.3 * share**0.6, abs=0.01)
        assert accuracy == beside == pytest.approx(94.24 - 5 * (1 - share) ** 3, abs=0.01)


def test_what_was_counted_is_drawn_and_not_what_was_asked() -> None:
    counted = [f | {"macs": f["macs"] // 2} if f.get("sweep") and "macs" in f else f for f in FULL]
    line = points(drawn(counted), 0)["channels"]
    assert [x for x, _ in line] == [6.25, 12.5, 17.5, 25.0, 37.5]


def test_controls_are_dashed_and_the_baseline_is_dotted() -> None:
    lines = drawn(FULL).axes[0].get_lines()
    styles = [line.get_linestyle() for line in lines]
    assert styles.count("-") == 1
    assert styles.count("--") == len(REMOVALS) - 1
    (dotted,) = (line for line in lines if line.get_linestyle() == ":")
    assert list(dotted.get_ydata()) == pytest.approx([94.24, 94.24])


def test_rows_of_the_default_run_that_removed_channels_stand_at_their_time() -> None:
    figure = drawn(FULL)
    assert points(figure, 1)["channels-50-int8"] == [(round(14.3 / 4.61, 2), 93.71)]
    assert not any("-50" in label for label in points(figure, 0))
    assert {"baseline", "channels-50-tuned"} <= set(legend(figure))
    assert not {"l1-global-60", "student", "static-int8"} & set(legend(figure))


def test_int8_alone_is_drawn_where_it_was_timed() -> None:
    timed = like("static-int8", "channels-50-int8", macs=556_651_520)
    figure = drawn([*(f for f in FULL if f["technique"] != "static-int8"), *timed])
    assert "static-int8" in legend(figure)


def test_a_row_far_below_stands_at_the_edge_with_its_accuracy() -> None:
    figure = drawn(FULL)
    ((_, height),) = points(figure, 1)["channels-50 (41%, off scale)"]
    assert height == pytest.approx(figure.axes[1].get_ylim()[0], abs=0.01)
    assert height > 80


def test_what_computes_the_same_and_what_kept_its_channels_are_left_out() -> None:
    more = [
        *like("channels-50-int8-coded", "channels-50-int8"),
        *like("channels-last", "channels-50-tuned", macs=556_651_520),
        *like("channels-50-shared-coded", "channels-50-tuned"),
    ]
    found = legend(drawn([*FULL, *more]))
    assert "channels-50-shared-coded" in found
    assert not {"channels-50-int8-coded", "channels-last"} & set(found)


def test_times_are_logarithmic_where_they_span_several_doublings() -> None:
    assert drawn(FULL).axes[1].get_xscale() == "log"
    close = [f for f in FULL if f["technique"] != "channels-50-int8"]
    assert drawn(close).axes[1].get_xscale() == "linear"


def test_the_interval_of_a_time_is_that_of_its_speed_up() -> None:
    container = drawn(FULL).axes[1].containers[-1]
    assert isinstance(container, ErrorbarContainer)
    (segment,) = container.lines[2][0].get_segments()  # type: ignore[attr-defined]
    ms = 14.3 / 4.61
    assert segment[:, 0] == pytest.approx([ms / 1.03, ms / 0.98])


@pytest.mark.parametrize(
    ("fits", "reason"),
    [
        (lambda f: not f.get("sweep"), "needs the sweep of channels: add -m sweep"),
        (lambda f: f["technique"] != "baseline", "needs sizes and accuracies of the baseline too"),
        (lambda f: f["metric"] != "size", "needs sizes and accuracies of the baseline too"),
        (lambda f: f["metric"] != "latency", "needs latencies: add -n 0"),
    ],
    ids=["sweep", "baseline", "size", "latency"],
)
def test_what_it_needs_is_said(fits: Callable[[Facts], bool], reason: str) -> None:
    found = macs_accuracy([f for f in FULL if fits(f)])
    assert isinstance(found, str)
    assert found.startswith(reason)
