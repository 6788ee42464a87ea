"""The page: saved runs to one HTML file that needs nothing else."""

from collections import Counter
from collections.abc import Sequence
from importlib.resources import files
from string import Template

from benchmarks.gate.changes import Changes
from benchmarks.report.page.front import front_section
from benchmarks.report.page.history import history_section
from benchmarks.report.page.html import Markup, join, tag
from benchmarks.report.page.points import SHOWN, points_of
from benchmarks.report.page.runs import Run, Setting, settings
from benchmarks.report.page.sweeps import sweeps_section
from benchmarks.report.page.tables import (
    cost_section,
    files_section,
    machine_section,
    memory_section,
    notes_section,
)


def page(runs: Sequence[Run], changes: Changes | None = None, against: str = "") -> str:
    """Return the report of saved runs, the oldest first, as HTML: drawings and script are inline.

    `changes` are those of the newest since the file `against`.
    """
    found = settings(runs)
    sections = [_setting(setting, f"s{i}") for i, setting in enumerate(found)]
    links = (
        tag("a", tag("b", s.workload), f" {s.device}", tag("small", s.machine), href=f"#s{i}")
        for i, s in enumerate(found)
    )
    newest = max(runs, key=lambda run: run.date)
    count = f"{len(runs)} runs, the newest of " if len(runs) > 1 else ""
    about = f"{count}{newest.date[:10]}, commit {newest.revision}"
    return Template(_beside("report.html")).substitute(
        title=tag("title", f"Compression: {found[0].workload}"),
        about=tag("p", about),
        changes=_changes(changes, against) if changes else "",
        css=_beside("report.css"),
        script=_beside("report.js") + _beside("history.js"),
        settings=tag("nav", *links, aria_label="Settings") if len(found) > 1 else "",
        body=join(*sections),
    )


def _beside(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def _changes(changes: Changes, against: str) -> Markup:
    """Return what became worse and better, open where something became worse."""
    parts = (
        join(tag("h4", title), tag("ul", *(tag("li", sentence) for sentence in sentences)))
        for title, sentences in changes.parts.items()
        if sentences
    )
    said = tag("summary", f"Against {against}: {changes}")
    return tag("details", said, *parts, open=bool(changes.regressions), class_="changes")


def _setting(setting: Setting, key: str) -> Markup:
    facts = list(setting.facts.values())
    points = points_of(facts, key)
    unshown = Counter(fact["metric"] for fact in facts if fact["metric"] not in SHOWN)
    sections = {
        "": front_section(points) if points else Markup(),
        "What a file consists of": files_section(points),
        "What compression costs": cost_section(points),
        "Sweeps": sweeps_section(facts),
        "Memory and energy": memory_section(points),
        "History": history_section(setting),
        "Machine and data": machine_section(setting),
        "Notes": notes_section(points, dict(unshown)),
    }
    shown = (
        tag("section", tag("h3", title) if title else "", content)
        for title, content in sections.items()
        if content
    )
    heading = tag("h2", f"{setting.workload}: {setting.data}, {setting.device}")
    note = tag("p", setting.machine, class_="note")
    return tag("article", heading, note, *shown, id=key)
