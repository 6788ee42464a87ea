"""The first screen: size and speed against accuracy, what fits a budget, and the table of it."""

from collections.abc import Iterable, Mapping, Sequence

from benchmarks.report.columns import significant
from benchmarks.report.page.chart import (
    LEFT,
    RIGHT,
    Axis,
    Place,
    accuracy_axis,
    across,
    chart,
    marker,
    names,
    steps,
    whiskers,
)
from benchmarks.report.page.controls import controls
from benchmarks.report.page.html import Markup, join, tag
from benchmarks.report.page.points import (
    Point,
    Timed,
    front,
    judged_by,
    timed_key,
    timed_name,
    timings,
)
from benchmarks.report.page.scales import logarithmic
from benchmarks.report.page.techniques import techniques
from benchmarks.report.quality import ACCURACY

SHOWN_POINTS = 12.0
"""Percentage points below the best that the axis of accuracy shows; lower ones lie at its edge."""
READING = (
    "Filled: on the front, where none is as small (or fast) and {better}. Lines are 95% intervals."
)


def front_section(points: Sequence[Point]) -> Markup:
    """Return plots, legend, budget and table of one setting."""
    timed = timings(points)
    plots = tag("div", _plots(points, timed))
    first = tag("div", plots, controls(points, timed), class_="first")
    return join(first, techniques(points, timed))


def _plots(points: Sequence[Point], timed: Sequence[Timed]) -> Markup:
    shown = [point for point in points if point.accuracy]
    if len(shown) < 2:
        said = "No front: fewer than two techniques have an accuracy."
        return tag("p", said, class_="note")
    y = _accuracies(shown)
    plots = []
    for how in (None, *timed):
        if any(point.along(how) for point in shown):
            drawn = _plot(shown, y, how)
            key = timed_key(how) if how else None
            plots.append(tag("figure", drawn, data_timed=key, hidden=how not in (None, *timed[:1])))
    better = "more accurate" if judged_by(shown) == ACCURACY else "better"
    below = [p.name for p in shown if p.accuracy and p.accuracy.percent < y.scale.low]
    note = f" Below the axis: {', '.join(below)}." if below else ""
    return join(
        tag("div", *plots, class_="plots"),
        tag("p", READING.format(better=better), note, class_="note"),
    )


def _accuracies(points: Iterable[Point]) -> Axis:
    found = [point.accuracy for point in points if point.accuracy]
    best, quality = max(share.percent for share in found), found[0].quality
    limited = quality.is_share and quality.higher_is_better
    shown = [share for share in found if share.percent >= best - SHOWN_POINTS or not limited]
    ends = (end for share in shown for end in (share.low, share.high))
    return accuracy_axis(ends, quality.title)


def _plot(points: Sequence[Point], y: Axis, how: Timed | None) -> Markup:
    """Return accuracy against the file size, or against a speed-up, of each point that has it."""
    known = {p: along for p in points if (along := p.along(how)) is not None}
    label = "stored file, MiB" if how is None else f"speed-up, {timed_name(how)}"
    x = Axis(logarithmic(known.values(), LEFT, RIGHT), label, _plain)
    places = {p.row_id: (x.scale(along), y.scale(_percent(p))) for p, along in known.items()}
    best = front(known, how)
    base = [point for point in points if point.kind == 0][:1]
    return chart(
        x,
        y,
        *(across(y.scale(_percent(point)), "base") for point in base),
        _front_line(best, places, RIGHT if how is None else LEFT),
        *(_mark(p, places[p.row_id], (x, y), how, hollow=p not in best) for p in known),
        names(((p.name, places[p.row_id]) for p in best), places.values()),
        label=f"test {judged_by(points).name} against {label}; arrow keys go from technique to "
        "technique",
        class_="plot",
        tabindex=0,
    )


def _front_line(best: Sequence[Point], places: Mapping[str, Place], edge: float) -> Markup:
    """Return the steps of the front, as far as an edge of the field."""
    if not best:
        return Markup()
    ends = [places[point.row_id] for point in best]
    return steps([*ends, (edge, ends[-1][1])], "front")


def _mark(
    point: Point, at: Place, axes: tuple[Axis, Axis], how: Timed | None, *, hollow: bool
) -> Markup:
    """Return a point with its intervals; one at the edge, off scale, has none of its accuracy."""
    x, y = (axis.scale for axis in axes)
    fact, share = point.speed(how) if how else None, point.accuracy
    reach = (x(fact["speed_up_low"]), x(fact["speed_up_high"])) if fact else None
    span = (y(share.low), y(share.high)) if share and share.percent >= y.low else None
    lines = whiskers(point.kind, at, x=reach, y=span)
    drawn = marker(point.kind, at, hollow=hollow)
    return tag("g", lines, drawn, class_="pt", data_row=point.row_id)


def _percent(point: Point) -> float:
    return point.accuracy.percent if point.accuracy else 0.0


def _plain(value: float) -> str:
    """Return a number of a logarithmic axis without zeros that say nothing."""
    return f"{float(significant(value)):g}"
