"""The sweeps: the paper's figures 2 and 6, sizes of files, and channels that were removed."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from benchmarks.facts.record import Facts
from benchmarks.report.page.chart import (
    LEFT,
    RIGHT,
    Axis,
    accuracy_axis,
    across,
    chart,
    legend,
    marker,
    polyline,
    whiskers,
)
from benchmarks.report.page.html import Cell, Line, Markup, join, table, tag
from benchmarks.report.page.points import share_of
from benchmarks.report.page.scales import Scale, linear, logarithmic
from benchmarks.report.quality import QUALITIES, baseline_of, quality_of

Number = Callable[[Facts], float]


@dataclass(frozen=True, slots=True)
class Sweep:
    """Points of one drawing: their number along its axis, their lines, a level to compare with."""

    title: str
    points: Sequence[Facts]
    label: str
    number: Number
    family: Callable[[Facts], str]
    log: bool = False
    control: tuple[str, float] | None = None


def sweeps_section(facts: Iterable[Facts]) -> Markup:
    """Return each sweep that the facts have points of, as a drawing and a table."""
    accuracy = [fact for fact in facts if fact["metric"] in QUALITIES]
    swept = [fact for fact in accuracy if fact.get("sweep")]
    found = (_pruning(swept), _distillation(swept), _sizes(accuracy), _channels(swept))
    figures = [tag("figure", _drawn(sweep)) for sweep in found if sweep.points]
    return tag("div", *figures, class_="sweeps") if figures else Markup()


def _pruning(swept: Sequence[Facts]) -> Sweep:
    points = [f for f in swept if "amount" in f]
    return Sweep(
        "Pruning and accuracy (the paper's figure 2)",
        points,
        "weights or filters removed, %",
        lambda f: 100 * f["amount"],
        lambda f: str(f.get("family")) + (", fine-tuned" if f.get("fine_tuned") else ""),
        control=_baseline(points),
    )


def _distillation(swept: Sequence[Facts]) -> Sweep:
    alone = next((f for f in swept if f["technique"].endswith("student")), None)
    return Sweep(
        "Distillation (the paper's figure 6)",
        [f for f in swept if "temperature" in f],
        "temperature",
        lambda f: float(f["temperature"]),
        lambda f: f"alpha {f.get('alpha', 0):g}",
        log=True,
        control=("without a teacher", share_of(alone).percent) if alone else None,
    )


def _sizes(accuracy: Sequence[Facts]) -> Sweep:
    points = [f for f in accuracy if "pruned" in f and f.get("baseline_stored_bytes")]
    return Sweep(
        "File size and accuracy",
        points if any(f.get("sweep") for f in points) else [],
        "baseline's file / stored file",
        lambda f: float(f["baseline_stored_bytes"] / f["stored_bytes"]),
        lambda _: "pruned, shared, entropy-coded",
        control=_baseline(points),
    )


def _channels(swept: Sequence[Facts]) -> Sweep:
    points = [f for f in swept if "macs_share" in f]
    return Sweep(
        "Channels removed and accuracy",
        points,
        "multiply-accumulates asked for, %",
        lambda f: 100 * f["macs_share"],
        lambda f: str(f.get("family")),
        control=_baseline(points),
    )


def _baseline(points: Sequence[Facts]) -> tuple[str, float] | None:
    known = [value for f in points if (value := baseline_of(f)) is not None]
    return ("baseline", known[0]) if known else None


def _drawn(sweep: Sweep) -> Markup:
    """Return a line per family of accuracy against the number, its legend, and the same as a table."""
    span = logarithmic if sweep.log else linear
    x = Axis(span(map(sweep.number, sweep.points), LEFT, RIGHT), sweep.label)
    shares = [share_of(fact) for fact in sweep.points]
    level = [sweep.control[1]] if sweep.control else []
    judged = quality_of(sweep.points)
    ends = (end for share in shares for end in (share.low, share.high))
    y = accuracy_axis([*level, *ends], judged.title)
    families = list(dict.fromkeys(map(sweep.family, sweep.points)))
    drawn = [across(y.scale(value), "base", name) for name, value in filter(None, [sweep.control])]
    for i, name in enumerate(families):
        line = [fact for fact in sweep.points if sweep.family(fact) == name]
        drawn.append(_line(sorted(line, key=sweep.number), i, x.scale, y.scale, sweep.number))
    lines = [_row(sweep.family(fact), sweep.number(fact), fact) for fact in sweep.points]
    numbers = table(["line", sweep.label, f"{judged.title} (95%)"], lines, sweep.title)
    return join(
        tag("figcaption", sweep.title),
        chart(x, y, *drawn, label=sweep.title),
        legend(enumerate(families)),
        tag("details", tag("summary", "numbers"), numbers),
    )


def _line(line: Sequence[Facts], i: int, x: Scale, y: Scale, number: Number) -> Markup:
    places = [(x(number(f)), y(share_of(f).percent)) for f in line]
    marks = []
    for fact, at in zip(line, places, strict=True):
        share = share_of(fact)
        marks += [whiskers(i, at, y=(y(share.low), y(share.high))), marker(i, at)]
    return join(polyline(places, f"line c{i % 9}"), *marks)


def _row(name: str, value: float, fact: Facts) -> Line:
    share = share_of(fact)
    return Line([Cell(name, name), Cell(f"{value:.4g}", value), Cell(share, share.percent)])
