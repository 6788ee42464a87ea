"""The table of techniques beside the front: file size, accuracy and speed of each."""

from collections.abc import Iterable, Sequence

from benchmarks.report.columns import interval, significant
from benchmarks.report.page.chart import icon
from benchmarks.report.page.html import NOTHING, Cell, Line, Markup, join, number, table, tag
from benchmarks.report.page.points import (
    Point,
    Timed,
    front,
    judged_by,
    kind_name,
    timed_key,
    timed_name,
)


def techniques(points: Sequence[Point], timed: Sequence[Timed]) -> Markup:
    """Return the table of all techniques; its lines say to the script what a budget limits."""
    by_size, by_speed = front(points, None), {how: front(points, how) for how in timed}
    judged = judged_by(points)
    heads: list[str | Cell] = ["technique", "kind", "file, MiB", "% of base"]
    heads += [f"{judged.title} (95%)", f"lost, {judged.lost_unit}".removesuffix(", ")]
    for how in timed:
        about = {"data_timed": timed_key(how)}
        heads += [Cell(f"{timed_name(how)}, ms", about=about), Cell("speed-up (95%)", about=about)]
    heads += ["on the front of", "target"]
    lines = []
    for point in points:
        fronts = ["size"] * (point in by_size)
        fronts += [timed_name(how) for how, best in by_speed.items() if point in best]
        cells = [*_quality(point), *_times(point, timed)]
        cells += [Cell("; ".join(fronts) or NOTHING), _target(point)]
        lines.append(Line(cells, _about(point, timed)))
    return table(
        heads, lines, f"Techniques by file size, {judged.name} and speed", style="front-table"
    )


def _quality(point: Point) -> list[Cell]:
    size = point.row.size
    base = size.get("baseline_stored_bytes")
    share = 100 * size["stored_bytes"] / base if base else None
    accuracy = point.accuracy
    return [
        Cell(point.name, point.name),
        Cell(join(icon(point.kind), " ", kind_name(point.kind)), kind_name(point.kind)),
        number(point.mib, significant),
        number(share, "{:.1f}".format),
        Cell(accuracy, accuracy.percent) if accuracy else Cell(),
        number(point.lost_points, judged_by([point]).written_lost),
    ]


def _times(point: Point, timed: Sequence[Timed]) -> Iterable[Cell]:
    for how in timed:
        about = {"data_timed": timed_key(how)}
        fact = point.speed(how)
        if fact:
            noisy = " (busy machine)" if fact.get("noisy") else ""
            yield Cell(significant(fact["latency_ms"]), fact["latency_ms"], about)
            yield Cell(interval(fact) + noisy, fact["speed_up"], about)
        else:
            yield Cell(point.row.unclaimed or NOTHING, None, about)
            yield Cell(NOTHING, None, about)


def _target(point: Point) -> Cell:
    if not point.row.met:
        return Cell()
    return Cell("met", 1.0) if all(point.row.met) else Cell(tag("strong", "missed"), 0.0)


def _about(point: Point, timed: Sequence[Timed]) -> dict[str, object]:
    """Return what the script reads of a technique: its kind, and what a budget limits."""
    times = ((how, point.speed(how)) for how in timed)
    known = " ".join(f"{timed_key(how)}:{fact['latency_ms']:.6g}" for how, fact in times if fact)
    return {
        "data_row": point.row_id,
        "data_kind": point.kind,
        "data_mib": point.mib,
        "data_points": point.lost_points,
        "data_ms": known or None,
    }
