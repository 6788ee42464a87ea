"""The sweeps: the paper's figures 2 and 6, sizes of files, and channels that were removed."""

from collections.abc import Callable, Iterable, Sequence

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

Number = Callable[[Facts], float]


def sweeps_section(facts: Iterable[Facts]) -> Markup:
    """Return each sweep that the facts have points of, as a drawing and a table."""
    accuracy = [fact for fact in facts if fact["metric"] == "accuracy" and "accuracy" in fact]
    found = [draw(accuracy) for draw in (_pruning, _distillation, _sizes, _channels)]
    return (
        tag("div", *(tag("figure", part) for part in found if part), class_="sweeps")
        if any(found)
        else Markup()
    )


def _pruning(accuracy: Sequence[Facts]) -> Markup:
    points = [f for f in accuracy if "amount" in f and f.get("sweep")]
    x = ("weights or filters removed, %", lambda f: 100 * f["amount"], False)
    return _lines("Pruning and accuracy (the paper's figure 2)", points, _pruned_family, x)


def _pruned_family(fact: Facts) -> str:
    return str(fact.get("family")) + (", fine-tuned" if fact.get("fine_tuned") else "")


def _distillation(accuracy: Sequence[Facts]) -> Markup:
    points = [f for f in accuracy if "temperature" in f and f.get("sweep")]
    x = ("temperature", lambda f: float(f["temperature"]), True)
    return _lines(
        "Distillation (the paper's figure 6)", points, lambda f: f"alpha {f.get('alpha', 0):g}", x
    )


def _sizes(accuracy: Sequence[Facts]) -> Markup:
    points = [f for f in accuracy if "pruned" in f and f.get("baseline_stored_bytes")]
    if not any(f.get("sweep") for f in points):
        return Markup()
    x = (
        "baseline's file / stored file",
        lambda f: f["baseline_stored_bytes"] / f["stored_bytes"],
        False,
    )
    return _lines("File size and accuracy", points, lambda _: "pruned, shared, entropy-coded", x)


def _channels(accuracy: Sequence[Facts]) -> Markup:
    points = [f for f in accuracy if "macs_share" in f and f.get("sweep")]
    x = ("multiply-accumulates asked for, %", lambda f: 100 * f["macs_share"], False)
    return _lines("Channels removed and accuracy", points, lambda f: str(f.get("family")), x)


def _lines(
    title: str,
    points: Sequence[Facts],
    family: Callable[[Facts], str],
    across_: tuple[str, Number, bool],
) -> Markup:
    """Return a line per family of accuracy against a number, its legend, and the same as a table."""
    if not points:
        return Markup()
    label, number, log = across_
    span = (logarithmic if log else linear)((number(f) for f in points), LEFT, RIGHT)
    x = Axis(span, label)
    y = _accuracies(points)
    families = list(dict.fromkeys(map(family, points)))
    drawn = []
    for i, name in enumerate(families):
        line = sorted((f for f in points if family(f) == name), key=number)
        drawn.append(_line(line, i, x.scale, y.scale, number))
    base = points[0].get("baseline_accuracy")
    control = across(y.scale(100 * base), "base", "baseline") if base is not None else Markup()
    lines = [_row(family(fact), number(fact), fact) for fact in points]
    heads = ["line", label, "accuracy, % (95%)"]
    numbers = tag("details", tag("summary", "numbers"), table(heads, lines, title))
    return join(
        tag("figcaption", title),
        chart(x, y, control, *drawn, label=title),
        legend(enumerate(families)),
        numbers,
    )


def _line(line: Sequence[Facts], i: int, x: Scale, y: Scale, number: Number) -> Markup:
    places = [(x(number(f)), y(share_of(f).percent)) for f in line]
    marks = []
    for fact, at in zip(line, places, strict=True):
        share = share_of(fact)
        marks += [whiskers(i, at, y=(y(share.low), y(share.high))), marker(i, at)]
    return join(polyline(places, f"line c{i % 9}"), *marks)


def _accuracies(points: Sequence[Facts]) -> Axis:
    ends = [end for f in points for end in (share_of(f).low, share_of(f).high)]
    base = [100 * f["baseline_accuracy"] for f in points if "baseline_accuracy" in f]
    return accuracy_axis([*ends, *base])


def _row(name: str, value: float, fact: Facts) -> Line:
    share = share_of(fact)
    return Line([Cell(name, name), Cell(f"{value:.4g}", value), Cell(share, share.percent)])
