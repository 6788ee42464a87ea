"""What removed channels cost: accuracy against multiply-accumulates, and against milliseconds."""

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

from benchmarks.facts.record import Facts
from benchmarks.report.drawings import (
    MARKERS,
    PALETTE,
    WIDTH_IN,
    percent,
    standard_error,
    tested,
    title,
)
from benchmarks.report.rows import Row, rows

HEIGHT_IN = 4.4
CONTROLS = ("random-channels", "small-dense")
POINT_MARKERS = "^P*hp8"
"""Of single techniques: others than those of the lines, and than that of what is off scale."""
ROOM = 1.0
"""Percentage points below the lowest point of a line."""
WIDE = 4.0
"""How many times the shortest time the longest is where the axis is logarithmic."""


def macs_accuracy(facts: list[Facts]) -> Figure | str:
    """Return accuracy against what stays and what it takes, or what the figure needs."""
    swept = [r for r in rows(facts, sweep=True) if "macs_share" in r.accuracy]
    if not swept:
        return "needs the sweep of channels: add -m sweep"
    default = rows(facts)
    base = next((r for r in default if r.technique == "baseline"), None)
    if base is None or not all(r.size and r.accuracy for r in (base, *swept)):
        return "needs sizes and accuracies of the baseline too: add -m 'sweep or not sweep'"
    if not any(_time(r) for r in swept):
        return "needs latencies: add -n 0"
    figure = Figure(figsize=(WIDTH_IN, HEIGHT_IN), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for i, family in enumerate(dict.fromkeys(r.accuracy["family"] for r in swept)):
        _line(left, right, [r for r in swept if r.accuracy["family"] == family], base, i)
    shown = _shown(default, base)
    lowest = min(percent(r.accuracy) for r in (*swept, base)) - ROOM
    for i, row in enumerate(shown):
        _point(right, row, PALETTE[(i + 3) % 7], POINT_MARKERS[i % len(POINT_MARKERS)], lowest)
    _baseline(left, right, base)
    left.set(xlabel="multiply-accumulates that stay, %", ylabel=tested([base.accuracy]))
    _time_axis(right, [time for r in (*swept, *shown, base) if (time := _time(r))])
    figure.suptitle(title([base.accuracy], "Channels removed and accuracy"), fontsize=10)
    handles, labels = right.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=8)
    return figure


def _time(row: Row) -> Facts | None:
    """Return the time of a prediction of the smallest batch, if it was measured."""
    found = [fact for (timing, _), fact in row.latency.items() if timing == "wall"]
    return min(found, key=lambda fact: int(fact["batch_size"]), default=None)


def _around(times: Sequence[Facts]) -> tuple[list[float], list[float]]:
    """Return how far below and above each time its 95% interval reaches, that of the speed-up."""
    ends = [
        [time["latency_ms"] * time["speed_up"] / time[f"speed_up_{end}"] for time in times]
        for end in ("high", "low")
    ]
    below, above = (
        [abs(float(time["latency_ms"]) - end) for time, end in zip(times, found, strict=True)]
        for found in ends
    )
    return below, above


def _line(left: Axes, right: Axes, points: Sequence[Row], base: Row, i: int) -> None:
    """Draw a family on both sides, in the colour and with the marker number `i`."""
    family = points[0].accuracy["family"]
    style: Any = {
        "color": PALETTE[i % 7],
        "marker": MARKERS[i % 7],
        "linestyle": "--" if family in CONTROLS else "-",
        "markersize": 4,
        "label": f"{family} (control)" if family in CONTROLS else family,
    }
    by_macs = sorted(points, key=lambda r: int(r.size["macs"]))
    left.errorbar(
        [100 * r.size["macs"] / base.size["macs"] for r in by_macs],
        [percent(r.accuracy) for r in by_macs],
        yerr=[standard_error(r.accuracy) for r in by_macs],
        **style,
    )
    timed = [(r, time) for r in by_macs if (time := _time(r))]
    right.errorbar(
        [time["latency_ms"] for _, time in timed],
        [percent(r.accuracy) for r, _ in timed],
        xerr=_around([time for _, time in timed]),
        yerr=[standard_error(r.accuracy) for r, _ in timed],
        **style,
    )


def _baseline(left: Axes, right: Axes, base: Row) -> None:
    """Draw the baseline's accuracy across both sides, and where its costs are."""
    accuracy, time = percent(base.accuracy), _time(base)
    for axes, x in ((left, 100.0), (right, time["latency_ms"] if time else None)):
        axes.axhline(accuracy, color="grey", linestyle=":", marker="", zorder=1)
        if x is not None:
            axes.plot(x, accuracy, "X", color="grey", markersize=6)
    right.plot([], [], color="grey", linestyle=":", marker="X", markersize=6, label="baseline")


def _shown(default: Sequence[Row], base: Row) -> list[Row]:
    """Return the timed rows of the default run that removed channels, and INT8 alone."""
    names = {row.technique for row in default}
    return [
        row
        for row in default
        if (row.technique == "static-int8" or _removed(row, base))
        and row.technique.removesuffix("-coded") not in names - {row.technique}  # the same network
        and row.accuracy
        and _time(row)
    ]


def _removed(row: Row, base: Row) -> bool:
    fewer = row.size.get("macs", base.size["macs"]) < base.size["macs"]
    return row.technique.startswith("channels-") and fewer


def _point(axes: Axes, row: Row, color: str, marker: str, lowest: float) -> None:
    """Draw a technique, at the lower edge where its accuracy is off scale."""
    time, accuracy = _time(row), percent(row.accuracy)
    assert time is not None
    below = accuracy < lowest
    axes.errorbar(
        time["latency_ms"],
        lowest if below else accuracy,
        xerr=None if below else _around([time]),
        yerr=None if below else standard_error(row.accuracy),
        color=color,
        markeredgecolor="black",
        markeredgewidth=0.5,
        marker="v" if below else marker,
        linestyle="none",
        clip_on=not below,
        label=f"{row.technique} ({accuracy:.0f}%, off scale)" if below else row.technique,
        zorder=3,
    )
    if below:
        axes.set_ylim(bottom=lowest)


def _time_axis(axes: Axes, times: Sequence[Facts]) -> None:
    """Name the axis of times; one that spans several doublings is logarithmic, in plain numbers."""
    found = [fact["latency_ms"] for fact in times]
    axes.set_xlabel(f"ms per prediction, batch {times[0]['batch_size']}")
    if max(found) > WIDE * min(found):
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 3.0, 5.0)))
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.xaxis.set_minor_locator(NullLocator())
