"""Then and now: bytes, accuracy and speed-up of a saved run beside those of this one."""

from collections.abc import Callable
from functools import partial

from benchmarks.report.columns import Cells, judgement, listed, number, significant
from benchmarks.report.quality import quality_of
from benchmarks.report.rows import Row, ends
from benchmarks.report.table import render_groups


def changes(then: list[Row], now: list[Row], *, width: int = 100) -> str:
    """Return a line per row of both runs, the saved value of each number left of this run's.

    A number that only one of them has stands beside a dash; the rows that the saved run lacks are
    named below.
    """
    saved = {(row.device, row.technique): row for row in then}
    pairs = [(saved[key], row) for row in now if (key := (row.device, row.technique)) in saved]
    added = [row.technique for row in now if (row.device, row.technique) not in saved]
    judged = quality_of(row.accuracy for row in now)
    several = len({row.device for row in now}) > 1
    names = [f"{row.device} {row.technique}" if several else row.technique for _, row in pairs]
    groups = [
        [["technique"], *([name] for name in names)],
        _beside("bytes", pairs, lambda row: number(row.file, "stored_bytes", 1, ",.0f")),
        _beside(judged.head, pairs, lambda row: judgement(row, judged)[0]),
        *(_beside(f"x at {n}", pairs, partial(_speed, batch=n)) for n in ends(now)),
    ]
    table = [render_groups(groups, width=width)] if pairs else []
    return "\n".join([*table, *([listed("not in the saved run", added)] if added else [])])


def _beside(head: str, pairs: list[tuple[Row, Row]], cell: Callable[[Row], str]) -> Cells:
    return [[head, "now"], *([cell(then), cell(now)] for then, now in pairs)]


def _speed(row: Row, batch: int) -> str:
    fact = row.latency.get(("wall", batch), {})
    return significant(fact["speed_up"]) if fact else "-"
