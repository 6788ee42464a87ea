"""Tables of the page: what files consist of, what compression costs, memory and energy, the runs."""

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

from benchmarks.facts.record import Facts
from benchmarks.report.columns import KIB, MIB, significant
from benchmarks.report.page.html import Cell, Line, Markup, join, number, table, tag
from benchmarks.report.page.points import Point
from benchmarks.report.page.runs import Setting

PARTS = ("values", "index", "codebook", "metadata")
"""What a file consists of, in the order of the bars and of their colours."""


def files_section(points: Sequence[Point]) -> Markup:
    """Return what each file consists of, as bars of one scale and in KiB; nothing where none knows."""
    known = [
        (point, point.row.size["contents"]) for point in points if "contents" in point.row.size
    ]
    if not known:
        return Markup()
    largest = max(sum(contents.values()) for _, contents in known) or 1
    lines = [
        Line(
            [
                Cell(point.name, point.name),
                Cell(
                    _bar([contents.get(part, 0) / largest for part in PARTS]),
                    sum(contents.values()),
                ),
                *(number(contents.get(part, 0) / KIB, "{:,.1f}".format) for part in PARTS),
                _percent(contents.get("values", 0), sum(contents.values())),
            ]
        )
        for point, contents in known
    ]
    key = join(
        *(tag("li", tag("i", class_=f"part p{i}"), " ", part) for i, part in enumerate(PARTS))
    )
    heads = ["technique", "share of the largest", *(f"{part}, KiB" for part in PARTS), "values, %"]
    return join(tag("ul", key, class_="legend"), table(heads, lines, "Parts of each stored file"))


def _bar(shares: Iterable[float]) -> Markup:
    """Return bars side by side whose lengths are shares of the longest of all lines."""
    ends = [0.0]
    for share in shares:
        ends.append(ends[-1] + 200 * share)
    parts = (
        tag("rect", x=round(a, 2), y=0, width=round(b - a, 2), height=12, class_=f"part p{i}")
        for i, (a, b) in enumerate(pairwise(ends))
    )
    return tag("svg", *parts, viewBox="0 0 200 12", class_="bar", aria_hidden="true")


def cost_section(points: Sequence[Point]) -> Markup:
    """Return the seconds and the memory that each compression took; nothing where none was measured."""
    lines = [
        Line(
            [
                Cell(point.name, point.name),
                _seconds(cost["seconds"]),
                _bytes(cost.get("peak_memory_bytes")),
                number(cost.get("calibration_images"), "{:,.0f}".format),
            ]
        )
        for point in points
        if "seconds" in (cost := point.row.cost)
    ]
    heads = ["technique", "seconds", "peak memory, MiB", "calibration images"]
    return table(heads, lines, "Cost of each compression") if lines else Markup()


def memory_section(points: Sequence[Point]) -> Markup:
    """Return memory and energy of predictions on a GPU; nothing where none was measured."""
    lines = [
        Line(
            [
                Cell(point.name, point.name),
                Cell(str(batch), float(batch)),
                _bytes(fact.get("model_memory_bytes")),
                _bytes(fact.get("prediction_peak_memory_bytes")),
                _energy(fact),
                number(fact.get("cuda_kernels"), "{:,.0f}".format),
            ]
        )
        for point in points
        for batch, fact in _by_batch(point).items()
        if "prediction_peak_memory_bytes" in fact or "energy_mj_per_image" in fact
    ]
    heads = [
        "technique",
        "batch",
        "model, MiB",
        "a prediction adds, MiB",
        "mJ per image",
        "kernels",
    ]
    return table(heads, lines, "Memory and energy of predictions") if lines else Markup()


def _by_batch(point: Point) -> dict[int, dict[str, Any]]:
    """Return what is known at each batch size, however it was timed: one way records the energy."""
    found: dict[int, dict[str, Any]] = {}
    for (_, batch), fact in sorted(point.row.latency.items(), key=lambda item: item[0][1]):
        known = {name: value for name, value in fact.items() if value is not None}
        found[batch] = found.get(batch, {}) | known
    return found


def _energy(fact: Facts) -> Cell:
    value = fact.get("energy_mj_per_image")
    return (
        Cell(fact.get("energy_unknown", "–")) if value is None else Cell(significant(value), value)
    )


def machine_section(setting: Setting) -> Markup:
    """Return where the newest numbers of a setting were measured, of what, and their files."""
    newest = setting.runs[-1]
    suite = newest.suite
    known = {
        "workload": setting.workload,
        "images": setting.data,
        "device": setting.device,
        "machine": setting.machine,
        "system": " ".join(
            str(newest.machine.get(k, "")) for k in ("system", "release", "machine")
        ),
        "Python": newest.machine.get("python_version"),
        **{
            name.replace("_", " "): suite[name]
            for name in sorted(suite)
            if name.endswith(("fingerprint", "seed"))
        },
    }
    told = (
        join(tag("dt", name), tag("dd", value))
        for name, value in known.items()
        if value not in (None, "")
    )
    lines = [
        Line(
            [
                Cell(run.path.name, run.path.name),
                Cell(run.date[:16].replace("T", " "), run.date),
                Cell(run.revision),
                Cell(str(len(run.facts)), float(len(run.facts))),
            ]
        )
        for run in reversed(setting.runs[-LISTED:])
    ]
    more = len(setting.runs) - len(lines)
    return join(
        tag("dl", *told),
        table(["file", "date", "commit", "benchmarks"], lines, "Saved runs, the newest first"),
        tag("p", f"{more} older runs are not listed.", class_="note") if more else "",
    )


LISTED = 20
"""Runs that are listed by name; the history draws all."""


def notes_section(points: Sequence[Point], unshown: dict[str, int]) -> Markup:
    """Return what no cell has room for: layers in float, and metrics that have no section here."""
    said = [
        f"{point.name}: {len(stays)} layers stay in float: {', '.join(sorted(stays))}"
        for point in points
        if (stays := point.row.in_float)
    ]
    said += [f"{count} entries of {metric}: not on this page" for metric, count in unshown.items()]
    return tag("ul", *(tag("li", sentence) for sentence in said)) if said else Markup()


def _seconds(value: float) -> Cell:
    return Cell(f"{value:,.1f}", value)


def _bytes(value: float | None) -> Cell:
    return number(None if value is None else value / MIB, significant)


def _percent(part: float, whole: float) -> Cell:
    return Cell() if not whole else Cell(f"{100 * part / whole:.1f}", part / whole)
