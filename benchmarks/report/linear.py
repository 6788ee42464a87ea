"""Linear layers on codes: one line per size and number of rows."""

from collections.abc import Sequence

from benchmarks.facts.record import Facts
from benchmarks.report.columns import interval
from benchmarks.report.table import markdown

KINDS = {"int8": "8 bits", "int4": "4 bits", "dynamic": "dynamic INT8"}
"""What stands behind a layer's size, and how the table calls it."""


def linear(facts: Sequence[Facts]) -> str:
    """Return float32's microseconds of each layer, and how many times as fast each kind of codes is."""
    found: dict[tuple[str, int], dict[str, Facts]] = {}
    for fact in facts:
        _, size, kind = fact["technique"].split("-")
        found.setdefault((size, fact["batch_size"]), {})[kind] = fact
    head = [
        "inputs x outputs",
        "rows",
        "float32, us",
        *(f"{name} (95%)" for name in KINDS.values()),
    ]
    lines = [
        [
            size,
            str(rows),
            f"{1e3 * next(iter(kinds.values()))['baseline_latency_ms']:.1f}",
            *(interval(kinds[kind]) if kind in kinds else "-" for kind in KINDS),
        ]
        for (size, rows), kinds in found.items()
    ]
    return markdown([head, *lines])
