"""The table at the end of a run: a row a technique, at most 100 columns wide."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

from benchmarks.harness.results import Facts

KIB, MIB = 2**10, 2**20
TIMINGS = ("wall", "event", "graph")
METRICS = ("size", "accuracy", "cost")


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
    in_float: set[str] = field(default_factory=set)


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
        elif fact["metric"] in METRICS:
            setattr(row, fact["metric"], fact)
        row.in_float |= set(fact.get("in_float", ()))
        if fact.get("target_met") is not None:
            row.met.append(bool(fact["target_met"]))
    return sorted(found.values(), key=lambda row: (row.device, row.technique != "baseline"))


def render(rows: list[Row], *, width: int = 100) -> str:
    """Return the table as text: blocks no wider than `width` under one another.

    Quality and size stand above what the files are made of and speed, below it what an integer network
    left in float. Columns that
    do not fit go into a further block, whole: a name or a number cut short would be a wrong one. Only
    a single column beyond `width` is wider.
    """
    blocks = [block for groups in _parts(rows) for block in _blocks(groups, width)]
    notes = "\n".join(_left_in_float(row) for row in rows if row.in_float)
    return "\n\n".join([*(_text(block) for block in blocks), *([notes] if notes else [])])


def render_markdown(rows: list[Row]) -> str:
    """Return quality, files and speed as Markdown tables."""
    return "\n\n".join(_markdown(_join(group)) for group in _parts(rows) if len(group) > 1)


Cells = list[list[str]]
"""Lines of cells, the head first."""

Groups = list[Cells]
"""Columns that stay together; the first group holds the names."""


def _parts(rows: list[Row]) -> tuple[Groups, Groups, Groups]:
    return _quality(rows), _files(rows), _speed(rows)


def _quality(rows: list[Row]) -> Groups:
    quality = [["MiB", "% base", "acc %", "drop pt", "params", "nonzero"]]
    cost = [["MACs", "sec", "target"]]
    for row in rows:
        size, accuracy = row.size, row.accuracy
        quality.append(
            [
                _number(size, "stored_bytes", MIB),
                _share(size),
                _number(accuracy, "accuracy", 0.01),
                _number(accuracy, "drop", 0.01, "+.2f"),
                _count(size, "parameters"),
                _count(size, "nonzeros"),
            ]
        )
        met = "-" if not row.met else "yes" if all(row.met) else "NO"
        long = row.cost.get("seconds", 0) >= 100
        cost.append([_count(size, "macs"), _number(row.cost, "seconds", 1, f".{1 - long}f"), met])
    return [_names(rows), quality, cost]


def _files(rows: list[Row]) -> Groups:
    """Return what each file is made of; nothing where no row knows."""
    kinds = ("values", "index", "codebook", "metadata")
    if not any("contents" in row.size for row in rows):
        return [_names(rows)]
    cells = [[f"{kind} KiB" for kind in kinds]]
    for row in rows:
        found = row.size.get("contents", {})
        cells.append([_number(found, kind, KIB, ",.1f") for kind in kinds])
    return [_names(rows), cells]


def _speed(rows: list[Row]) -> Groups:
    keys = {key for row in rows for key in row.latency}
    ordered = sorted(keys, key=lambda key: (TIMINGS.index(key[0]), key[1]))
    return [_names(rows), *(_latency(rows, *key) for key in ordered)]


def _latency(rows: list[Row], timing: str, batch: int) -> Cells:
    where = f"batch {batch}" + ("" if timing == "wall" else f" {timing}")
    cells = [[f"{where} ms", "speed-up (95%)"]]
    timed = {row.device for row in rows if (timing, batch) in row.latency}
    for row in rows:
        fact = row.latency.get((timing, batch), {})
        simulated = row.simulated and row.device in timed
        cells.append(["simulated", "-"] if simulated else [_milliseconds(fact), _interval(fact)])
    return cells


def _left_in_float(row: Row) -> str:
    names = sorted(row.in_float)
    some = ", ".join(names[:3]) + (", ..." if names[3:] else "")
    return f"{row.technique}: layers that stay in float: {len(names)} ({some})"


def _names(rows: list[Row]) -> Cells:
    several = len({row.device for row in rows}) > 1
    names = [f"{row.device} {row.technique}" if several else row.technique for row in rows]
    return [["technique"], *([name] for name in names)]


def _number(facts: Facts, key: str, unit: float, form: str = ".2f") -> str:
    return format(facts[key] / unit, form) if facts.get(key) is not None else "-"


def _milliseconds(facts: Facts) -> str:
    return _significant(facts["latency_ms"]) if facts else "-"


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
    value = float(f"{facts[key]:.3g}")  # rounded first: 999,960 is 1.00M, not 1000k
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{_significant(value / size)}{unit}"
    return f"{value:.0f}"


def _significant(value: float) -> str:
    """Return three significant digits, trailing zeros kept and never an exponent."""
    value = float(f"{value:.3g}")
    decimals = 2 - math.floor(math.log10(value)) if value > 0 else 2
    return f"{value:.{min(max(decimals, 0), 4)}f}"


def _blocks(groups: Groups, width: int) -> list[Cells]:
    """Join groups side by side while they fit, the names before each block."""
    names, *rest = groups
    blocks: list[Groups] = []
    for group in rest:
        if blocks and _width(_join([*blocks[-1], group])) <= width:
            blocks[-1].append(group)
        else:
            blocks.append([names, group])
    return [_told(_join(block)) for block in blocks]


def _told(cells: Cells) -> Cells:
    """Drop the devices of which a block tells nothing: a CPU has no CUDA events."""
    device = {line[0]: line[0].partition(" ")[0] for line in cells if " " in line[0]}
    told = {device.get(line[0]) for line in cells[1:] if set(line[1:]) != {"-"}}
    return [cells[0], *(line for line in cells[1:] if device.get(line[0]) in told)]


def _join(groups: Groups) -> Cells:
    return [[cell for part in line for cell in part] for line in zip(*groups, strict=True)]


def _widths(cells: Cells) -> list[int]:
    return [max(map(len, column)) for column in zip(*cells, strict=True)]


def _width(cells: Cells) -> int:
    return sum(_widths(cells)) + 2 * (len(cells[0]) - 1)


def _text(cells: Cells) -> str:
    first, *others = _widths(cells)
    lines = [
        "  ".join(
            [line[0].ljust(first), *(c.rjust(w) for c, w in zip(line[1:], others, strict=True))]
        )
        for line in cells
    ]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def _markdown(cells: Cells) -> str:
    lines = ["| " + " | ".join(line) + " |" for line in cells]
    rule = "|-|" + "-:|" * (len(cells[0]) - 1)
    return "\n".join([lines[0], rule, *lines[1:]])
