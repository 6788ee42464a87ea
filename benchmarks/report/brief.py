"""The table that a run ends with: one line per technique."""

from benchmarks.report.columns import Groups, half_interval, judgement, listed, mebibytes
from benchmarks.report.quality import quality_of
from benchmarks.report.rows import Row, ends
from benchmarks.report.table import render_groups

MOST_MISSED = 2
"""Promises in a cell."""


def brief(rows: list[Row], *, width: int = 100) -> str:
    """Return a line per technique: file, accuracy, speed-up with its interval, missed targets.

    Each device has a block, whose lines are at most `width` wide. On a GPU the speed-up is that of the
    wall clock. A row that knows none of these is left out.
    """
    known = [row for row in rows if row.size or row.accuracy or row.cost or row.latency]
    kinds = dict.fromkeys(row.device for row in known)
    blocks = [
        render_groups(_groups([row for row in known if row.device == kind], kind), width=width)
        for kind in kinds
    ]
    return "\n".join(["\n\n".join(blocks), *_noisy(known)])


def _groups(rows: list[Row], kind: str) -> Groups:
    head = "technique" if kind == "cpu" else f"technique ({kind})"
    judged = quality_of(row.accuracy for row in rows)
    quality = [["MiB", judged.head, judged.lost_head]]
    for row in rows:
        quality.append([mebibytes(row.file.get("stored_bytes")), *judgement(row, judged)])
    speeds = [
        [[f"speed at {batch}"], *([_speed(row, batch)] for row in rows)] for batch in ends(rows)
    ]
    targets = [["target"], *([_target(row)] for row in rows)]
    return [[[head], *([row.technique] for row in rows)], quality, *speeds, targets]


def _speed(row: Row, batch: int) -> str:
    return row.unclaimed or half_interval(row.latency.get(("wall", batch), {}))


def _target(row: Row) -> str:
    if not row.missed:
        return "yes" if row.met else "-"
    more = len(row.missed) - MOST_MISSED  # in a line of their own they would be a second table
    return f"NO {' '.join(row.missed[:MOST_MISSED])}{f' +{more}' * (more > 0)}"


def _noisy(rows: list[Row]) -> list[str]:
    """Return the sentence on times that are no evidence, where there are some."""
    names = [row.technique for row in rows if row.noisy]
    return [listed("times of a busy machine, no evidence", names)] if names else []
