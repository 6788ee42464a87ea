"""The table's columns: quality, files, speed on a CPU, and time, memory and energy on a GPU."""

import math
from collections.abc import Sequence
from textwrap import shorten

from benchmarks.facts.record import Facts
from benchmarks.report.quality import Quality, lost_of, quality_of, value_of
from benchmarks.report.rows import Row

KIB, MIB = 2**10, 2**20
LEAST_MIB = 0.1
"""What is less would have one digit in MiB, or none."""
TIMINGS = ("wall", "event", "graph")

Cells = list[list[str]]
"""Lines of cells, the head first."""

Groups = list[Cells]
"""Columns that stay together; the first group holds the names."""


def parts(rows: list[Row]) -> list[Groups]:
    """Return what stands under one another: quality, files, then the speed on each device."""
    cpu, cuda = ([r for r in rows if (r.device == "cuda") == gpu] for gpu in (False, True))
    several = bool(cpu and cuda)
    return [
        _quality(rows, _names(rows, several)),
        _files(rows, _names(rows, several)),
        _speed(cpu, _names(cpu, several)),
        *(_cuda_speed(cuda, timing) for timing in TIMINGS),
        _cuda_costs(cuda),
    ]


def notes(row: Row) -> list[str]:
    """Return the sentences on a row that no cell has room for."""
    sentences = []
    if row.in_float:
        sentences.append(f"{row.technique}: layers that stay in float: {_some(row.in_float)}")
    if row.left_out_count:
        some = _some(row.left_out) if row.left_out else str(row.left_out_count)
        sentences.append(f"{row.technique}: layers left out: {some}")
    noisy = {batch for (_, batch), fact in row.latency.items() if fact.get("noisy")}
    if noisy:
        batches = " and ".join(map(str, sorted(noisy)))
        sentences.append(f"{row.technique}: times of a busy machine, no evidence: batch {batches}")
    if row.unclaimed and row.device == "cuda":
        sentences.append(f"{row.technique}: {row.unclaimed} on a GPU, no latency to claim")
    return sentences


def _some(found: set[str]) -> str:
    names = sorted(found)
    return f"{len(names)} ({', '.join(names[:3])}{', ...' if names[3:] else ''})"


def listed(what: str, names: Sequence[str], *, width: int = 100) -> str:
    """Return a line that says how many names there are, and as many of them as it has room for."""
    line = f"{what} ({len(names)}): {', '.join(names)}"
    return shorten(line, width, placeholder=" ...", break_on_hyphens=False)


def _names(rows: list[Row], several: bool) -> Cells:
    names = [f"{row.device} {row.technique}" if several else row.technique for row in rows]
    return [["technique"], *([name] for name in names)]


def _quality(rows: list[Row], names: Cells) -> Groups:
    judged = quality_of(row.accuracy for row in rows)
    quality = [["MiB", "% base", judged.head, judged.lost_head, "params", "nonzero"]]
    cost = [["MACs", "sec", "target"]]
    for row in rows:
        size = row.size
        quality.append(
            [
                mebibytes(size.get("stored_bytes")),
                _share(size),
                *judgement(row, judged),
                _count(size, "parameters"),
                _count(size, "nonzeros"),
            ]
        )
        met = "-" if not row.met else "yes" if all(row.met) else "NO"
        long = row.cost.get("seconds", 0) >= 100
        cost.append([_count(size, "macs"), number(row.cost, "seconds", 1, f".{1 - long}f"), met])
    return [names, quality, cost]


def _files(rows: list[Row], names: Cells) -> Groups:
    """Return what each file is made of; nothing where no row knows."""
    kinds = ("values", "index", "codebook", "metadata")
    if not any("contents" in row.size for row in rows):
        return [names]
    cells = [[f"{kind} KiB" for kind in kinds]]
    for row in rows:
        contents = row.size.get("contents", {})
        cells.append([number(contents, kind, KIB, ",.1f") for kind in kinds])
    return [names, cells]


def _speed(rows: list[Row], names: Cells) -> Groups:
    keys = {key for row in rows for key in row.latency}
    ordered = sorted(keys, key=lambda key: (TIMINGS.index(key[0]), key[1]))
    return [names, *(_latency(rows, *key) for key in ordered)]


def _latency(rows: list[Row], timing: str, batch: int) -> Cells:
    where = f"batch {batch}" + ("" if timing == "wall" else f" {timing}")
    cells = [[f"{where} ms", "speed-up (95%)"]]
    for row in rows:
        fact = row.latency.get((timing, batch), {})
        cells_of_row = [_milliseconds(fact), interval(fact)]
        cells.append([row.unclaimed, "-"] if row.unclaimed else cells_of_row)
    return cells


def _cuda_speed(rows: list[Row], timing: str) -> Groups:
    """Return the columns of one way of timing: three batches side by side, short heads."""
    batches = sorted({b for row in rows for found, b in row.latency if found == timing})
    groups = [[[f"technique (cuda {timing}, by batch)"], *([row.technique] for row in rows)]]
    for batch in batches:
        cells = [[f"{batch} ms", "speed ±95%"]]
        for row in rows:
            fact = row.latency.get((timing, batch), {})
            cells.append([_milliseconds(fact), half_interval(fact)])
        groups.append(cells)
    return groups


def _cuda_costs(rows: list[Row]) -> Groups:
    """Return kernels, and by batch the memory and energy of a prediction, where any row knows them."""
    groups = [[["kernels", *(_kernels(row) for row in rows)]]]
    for batch in sorted({batch for row in rows for _, batch in row.latency}):
        memory = [f"{batch} MiB", *(_memory(row, batch) for row in rows)]
        energy = ["mJ/image", *(_energy(row, batch) for row in rows)]
        groups.append([memory, energy])
    known = [[column for column in group if set(column[1:]) - {"-"}] for group in groups]
    names = [["technique (cuda, by batch)", *(row.technique for row in rows)]]
    return [[list(line) for line in zip(*group, strict=True)] for group in (names, *known) if group]


def _kernels(row: Row) -> str:
    known = [f["cuda_kernels"] for f in row.latency.values() if f.get("cuda_kernels")]
    return str(known[0]) if known else "-"


def _memory(row: Row, batch: int) -> str:
    """Return what the model holds and a prediction adds: an executor may reserve all of it ahead."""
    keys = ("model_memory_bytes", "prediction_peak_memory_bytes")
    known = [f for (_, b), f in row.latency.items() if b == batch and f.get(keys[1]) is not None]
    return significant(sum(known[0].get(key, 0) for key in keys) / MIB) if known else "-"


def _energy(row: Row, batch: int) -> str:
    facts = [f for (_, b), f in row.latency.items() if b == batch]
    known = [f["energy_mj_per_image"] for f in facts if "energy_mj_per_image" in f]
    return significant(known[0]) if known else "-"


def half_interval(facts: Facts) -> str:
    """Return the speed-up and how far the farther end of its interval is."""
    if not facts:
        return "-"
    value, low, high = (facts[f"speed_up{end}"] for end in ("", "_low", "_high"))
    return f"{value:.2f} ±{max(high - value, value - low):.2f}"


def number(facts: Facts, key: str, unit: float, form: str = ".2f") -> str:
    """Return a fact in a unit, a dash where it is not known."""
    return format(facts[key] / unit, form) if facts.get(key) is not None else "-"


def judgement(row: Row, judged: Quality) -> list[str]:
    """Return the cells of a row's accuracy or score, and of what it lost; dashes for another metric."""
    value, lost = value_of(row.accuracy), lost_of(row.accuracy)
    if quality_of([row.accuracy]) != judged:
        return ["-", "-"]
    return [
        "-" if value is None else judged.written(value),
        "-" if lost is None else judged.written_lost(lost),
    ]


def mebibytes(count: int | None) -> str:
    """Return a column's number of MiB, of few bytes in KiB with the unit; a dash without any."""
    return "-" if count is None else in_bytes(count).removesuffix(" MiB")


def in_bytes(count: int) -> str:
    """Return a number of bytes in MiB, or in KiB where it is small, with its unit.

    >>> in_bytes(1_218_176), in_bytes(9_000)
    ('1.16 MiB', '8.8 KiB')
    """
    return f"{count / MIB:.2f} MiB" if count >= LEAST_MIB * MIB else f"{count / KIB:.1f} KiB"


def _milliseconds(facts: Facts) -> str:
    return significant(facts["latency_ms"]) if facts else "-"


def interval(facts: Facts) -> str:
    """Return the speed-up with its 95% interval, a dash for an empty record."""
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
            return f"{significant(value / size)}{unit}"
    return f"{value:.0f}"


def significant(value: float) -> str:
    """Return three significant digits, trailing zeros kept and never an exponent."""
    value = float(f"{value:.3g}")
    decimals = 2 - math.floor(math.log10(value)) if value > 0 else 2
    return f"{value:.{min(max(decimals, 0), 4)}f}"
