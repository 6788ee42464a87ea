"""The history: each technique's size, accuracy and speed-up over the runs of one machine."""

from collections.abc import Iterable, Sequence
from itertools import groupby, pairwise

from benchmarks.report.page.html import Cell, Line, Markup, table, tag
from benchmarks.report.page.levels import SOON, can_judge
from benchmarks.report.page.runs import Run, Setting
from benchmarks.report.page.scales import Scale, linear
from benchmarks.report.page.series import Series, by_technique, measures, series_of

WIDTH, HEIGHT = 600, 150
EDGE = 8
FEW = 40
"""Runs that are drawn as points, not only as a line."""
READING = (
    "Dashes: about how far the gate lets the next run go. Triangles: the first run of a new level, "
    "down where it became worse. Point at a line for its runs; press Enter or click for a larger one."
)
FINDS = (
    f"Finds 4%: the row's noise lets a step of 4% be found within {SOON} runs, 4 times of 5. "
    "By chance all speed-ups together show a step at most once in 100 runs."
)


def history_section(setting: Setting) -> Markup:
    """Return what changed its level and in which run, and a line per technique and metric."""
    if len(setting.runs) < 2:
        return Markup()
    runs, series = series_of(setting)
    older = len(setting.runs) - len(runs)
    notes = [READING]
    if any(one.finds for one in series):
        notes.append(FINDS)
    if not can_judge():
        notes.append("Speed-ups are not judged: that takes ruptures, pip install -e '.[report]'.")
    if older:
        notes.append(f"{older} older runs are not drawn.")
    labels = "|".join(f"{run.date[:10]} {run.revision}".replace("|", "/") for run in runs)
    return tag(
        "div",
        _changes(runs, series),
        tag("p", " ".join(notes), class_="note"),
        _lines(series, len(runs)),
        class_="history",
        data_runs=labels,
    )


def _changes(runs: Sequence[Run], series: Iterable[Series]) -> Markup:
    """Return the changes of level as a table, those for the worse first, the newest before others."""
    found = [(one, step) for one in series for step in range(len(one.starts))]
    if not found:
        return tag("p", "No level changed.")
    found.sort(key=lambda item: (not item[0].worse(item[1]), -item[0].at[item[0].starts[item[1]]]))
    heads = ["technique", "measure", "before", "after", "change", "", "first run", "commit"]
    lines = [_change(runs, one, step) for one, step in found]
    return table(heads, lines, "Changes of level, and the first run of the new one")


def _change(runs: Sequence[Run], one: Series, step: int) -> Line:
    before, after = one.levels[step : step + 2]
    run = runs[one.at[one.starts[step]]]
    worse = one.worse(step)
    return Line(
        [
            Cell(one.technique, one.technique),
            Cell(one.measure.name, one.measure.name),
            Cell(one.measure.form(before), before),
            Cell(one.measure.form(after), after),
            Cell(one.measure.change(before, after), after - before),
            Cell(tag("strong", "worse") if worse else "better", "worse" if worse else "better"),
            Cell(run.date[:10], run.date),
            Cell(run.revision, run.revision),
        ]
    )


def _lines(series: Sequence[Series], count: int) -> Markup:
    """Return a table of small drawings: a line per technique, a column per measure."""
    heads = measures(series)
    lines = []
    for technique, found in by_technique(series).items():
        cells = [Cell(technique, technique)]
        for name in heads:
            one = found.get(name)
            cells.append(Cell(_drawn(one, count), one.values[-1]) if one else Cell())
        lines.append(Line(cells))
    return table(["technique", *heads], lines, "Each measure over the runs")


def _drawn(one: Series, count: int) -> Markup:
    """Return a series as a drawing and its newest value; the script reads its values from it."""
    y = linear([*one.values, *one.limits], HEIGHT - EDGE, EDGE)
    step = (WIDTH - 2 * EDGE) / max(count - 1, 1)
    places = [
        (round(EDGE + i * step), round(y(value)))
        for i, value in zip(one.at, one.values, strict=True)
    ]
    finds = f"finds {one.finds:.{1 if one.finds < 0.1 else 0}%}" if one.finds else ""
    drawing = tag(
        "svg",
        tag("path", d=_limits(one, y, step), class_="limit"),
        tag("path", d=_path(places), class_="trend"),
        *(tag("circle", cx=x, cy=y, r=3.5) for x, y in places if count <= FEW),
        *(_mark(places[start], worse=one.worse(i)) for i, start in enumerate(one.starts)),
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        preserveAspectRatio="none",
        class_="spark",
        role="img",
        aria_label=f"{one.technique}, {one.measure.name}: {len(one.starts)} changes of level"
        + (f", {finds}" if finds else ""),
        tabindex=0,
        data_name=f"{one.technique}: {one.measure.name}",
        data_values=packed(one, count),
    )
    value = tag("span", one.measure.form(one.values[-1]), tag("small", finds) if finds else "")
    return tag("div", drawing, value, class_="traced")


def _path(places: Sequence[tuple[int, int]]) -> str:
    """Return a line through places, without those in the middle of a level stretch."""
    kept = [
        place
        for i, place in enumerate(places)
        if i in (0, len(places) - 1) or not places[i - 1][1] == place[1] == places[i + 1][1]
    ]
    return "M" + " ".join(f"{x} {y}" for x, y in kept)


def _limits(one: Series, y: Scale, step: float) -> str:
    """Return how far the gate lets each level go, as far as the level reaches."""
    ends = [0, *one.starts, len(one.values)]
    parts = []
    for (first, beyond), limit in zip(pairwise(ends), one.limits, strict=True):
        left, right = (round(EDGE + one.at[i] * step) for i in (first, beyond - 1))
        parts.append(f"M{left} {y(limit):.0f}H{max(right, left + 4)}")
    return "".join(parts)


def _mark(at: tuple[int, int], *, worse: bool) -> Markup:
    x, y = at
    d = f"M{x} {y - 6}l-9 -15h18z" if worse else f"M{x} {y + 6}l-9 15h18z"
    return tag("path", d=d, class_="worse" if worse else "better")


def packed(one: Series, count: int) -> str:
    """Return the values as written, by the number of the run: equal ones once, `*` how often."""
    written = [""] * count
    for i, value in zip(one.at, one.values, strict=True):
        written[i] = one.measure.form(value)
    runs = [(value, len(list(same))) for value, same in groupby(written)]
    return " ".join(
        value + (f"*{times}" if times > 1 or not value else "") for value, times in runs
    )
