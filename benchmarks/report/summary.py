"""The summary of a run as Markdown for CI: at most 30 lines, what became worse first."""

from collections.abc import Sequence

from benchmarks.gate.changes import Changes
from benchmarks.report.columns import interval, significant
from benchmarks.report.page.points import Point, front, points_of, timings
from benchmarks.report.page.runs import Run, Setting, settings
from benchmarks.report.quality import quality_of
from benchmarks.report.table import markdown

MOST_LINES = 30


def summary(runs: Sequence[Run], changes: Changes | None, against: str = "") -> str:
    """Return what changed since the file `against`, then the front of the newest run."""
    newest = runs[-1]
    lines = [f"# Compression: {newest.date[:10]}, commit {newest.revision}"]
    if changes is not None:
        lines += ["", f"Against {_code(against)}: {changes}"]
        for title, sentences in changes.parts.items():
            lines += _part(title, sentences, MOST_LINES - len(lines))
    table = _front(settings([newest])[0])
    if len(lines) + len(table) <= MOST_LINES:
        lines += table
    return "\n".join(lines) + "\n"


def _part(title: str, sentences: Sequence[str], room: int) -> list[str]:
    """Return a heading and a sentence per line, no more than there is room for."""
    if not sentences or room < 5:
        return []
    shown = sentences if len(sentences) <= room - 3 else sentences[: room - 4]
    more = len(sentences) - len(shown)
    rest = [f"- and {more} more, in report.html"] if more else []
    return ["", f"## {title}", "", *(f"- {_code(sentence)}" for sentence in shown), *rest]


def _front(setting: Setting) -> list[str]:
    points = points_of(setting.facts.values())
    best = front(points, None)[: MOST_LINES // 3]
    if not best:
        return []
    timed, judged = timings(points)[:1], quality_of(point.row.accuracy for point in best)
    head = ["technique", "file, MiB", f"{judged.title} (95%)", *("speed-up (95%)" for _ in timed)]
    lines = [
        [*_cells(point), *(interval(point.speed(how) or {}) for how in timed)] for point in best
    ]
    title = f"{setting.workload}, {setting.device}: the smallest files of each {judged.name}"
    return ["", f"## {_plain(title)}", "", *markdown([head, *lines]).splitlines()]


def _cells(point: Point) -> list[str]:
    return [_code(point.name), significant(point.mib or 0.0), str(point.accuracy)]


def _code(text: str) -> str:
    """Return text that no Markdown is read in."""
    return f"`{' '.join(text.split()).replace('`', chr(39)).replace('|', '/')}`"


def _plain(text: str) -> str:
    return "".join(c for c in " ".join(text.split()) if c not in "<>[]*`|\\")
