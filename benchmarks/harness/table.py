"""The table at the end of a run: a row a technique, at most 100 columns wide."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from benchmarks.harness.results import Facts

MIB = 2**20


@dataclass(slots=True)
class Row:
    """What was found of one technique on one device; a metric that did not run is empty."""

    device: str
    technique: str
    simulated: bool
    size: Facts = field(default_factory=dict)
    accuracy: Facts = field(default_factory=dict)
    cost: Facts = field(default_factory=dict)
    latency: dict[tuple[str, int], Facts] = field(default_factory=dict)
    met: list[bool] = field(default_factory=list)


def rows(facts: Iterable[Facts], *, sweep: bool = False) -> list[Row]:
    """Return a row for each device and technique, the baseline first, else in order."""
    found: dict[tuple[str, str], Row] = {}
    for fact in facts:
        if bool(fact.get("sweep")) != sweep:
            continue
        key = (fact["device"], fact["technique"])
        row = found.setdefault(key, Row(*key, simulated=bool(fact["simulated"])))
        if fact["metric"] == "latency":
            row.latency[fact["timing"], fact["batch_size"]] = fact
        else:
            setattr(row, fact["metric"], fact)
        if fact.get("target_met") is not None:
            row.met.append(bool(fact["target_met"]))
    return sorted(found.values(), key=lambda row: (row.device, row.technique != "baseline"))


def render(rows: list[Row], *, width: int = 100) -> str:
    """Return the two blocks of the table as text no wider than `width`."""
    blocks = [_text(_quality(rows), width), _text(_speed(rows), width)]
    return "\n\n".join(block for block in blocks if block)


def render_markdown(rows: list[Row]) -> str:
    """Return the two blocks as Markdown tables."""
    return "\n\n".join(_markdown(cells) for cells in (_quality(rows), _speed(rows)) if cells)


Cells = list[list[str]]


def _quality(rows: list[Row]) -> Cells:
    head = ["technique", "MiB", "% base", "acc %", "drop pt", "params", "nonzero", "MACs"]
    cells = [[*head, "sec", "target"]]
    for row in rows:
        size, accuracy = row.size, row.accuracy
        cells.append(
            [
                _name(row, rows),
                _number(size, "stored_bytes", MIB),
                _share(size),
                _number(accuracy, "accuracy", 0.01),
                _number(accuracy, "drop", 0.01, "+.2f"),
                _count(size, "parameters"),
                _count(size, "nonzeros"),
                _count(size, "macs"),
                _number(row.cost, "seconds", 1, ".1f"),
                "-" if not row.met else "yes" if all(row.met) else "NO",
            ]
        )
    return cells


def _speed(rows: list[Row]) -> Cells:
    keys = sorted({key for row in rows for key in row.latency}, key=lambda k: (k[1], k[0]))
    if not keys:
        return []
    head = ["technique"]
    for timing, batch in keys:
        where = f"batch {batch}" + ("" if timing == "wall" else f" {timing}")
        head += [f"{where} ms", "speed-up (95%)"]
    cells = [head]
    for row in rows:
        line = [_name(row, rows)]
        for key in keys:
            fact = row.latency.get(key, {})
            line += ["simulated", "-"] if row.simulated else [_milliseconds(fact), _interval(fact)]
        cells.append(line)
    return cells


def _name(row: Row, rows: list[Row]) -> str:
    several = len({r.device for r in rows}) > 1
    return f"{row.device} {row.technique}" if several else row.technique


def _number(facts: Facts, key: str, unit: float, form: str = ".2f") -> str:
    return format(facts[key] / unit, form) if key in facts else "-"


def _milliseconds(facts: Facts) -> str:
    return f"{facts['latency_ms']:.3g}" if facts else "-"


def _interval(facts: Facts) -> str:
    if not facts:
        return "-"
    return f"{facts['speed_up']:.2f} ({facts['speed_up_low']:.2f}-{facts['speed_up_high']:.2f})"


def _share(facts: Facts) -> str:
    if not facts:
        return "-"
    return f"{100 * facts['stored_bytes'] / facts['baseline_stored_bytes']:.1f}"


def _count(facts: Facts, key: str) -> str:
    if key not in facts:
        return "-"
    value = float(facts[key])
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.0f}"


def _text(cells: Cells, width: int) -> str:
    if not cells:
        return ""
    widths = [max(len(line[i]) for line in cells) for i in range(len(cells[0]))]
    # Names give way first: numbers cut short would be wrong numbers.
    widths[0] = max(12, widths[0] - max(0, sum(widths) + 2 * (len(widths) - 1) - width))
    lines = [
        "  ".join(
            [_cut(line[0], widths[0]).ljust(widths[0])]
            + [cell.rjust(w) for cell, w in zip(line[1:], widths[1:], strict=True)]
        ).rstrip()
        for line in cells
    ]
    return "\n".join([lines[0], "-" * min(width, max(map(len, lines))), *lines[1:]])


def _cut(name: str, width: int) -> str:
    return name if len(name) <= width else f"{name[: width - 1]}~"


def _markdown(cells: Cells) -> str:
    lines = ["| " + " | ".join(line) + " |" for line in cells]
    rule = "|-|" + "-:|" * (len(cells[0]) - 1)
    return "\n".join([lines[0], rule, *lines[1:]])
