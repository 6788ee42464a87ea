"""Layers on codes: one line per size and number of rows."""

from collections.abc import Sequence

from benchmarks.facts.record import Facts
from benchmarks.report.columns import interval
from benchmarks.report.table import markdown

KINDS = {"int8": "8 bits", "int4": "4 bits", "dynamic": "dynamic INT8"}
"""What stands behind a layer's size, and how the table calls it."""
HEAD = ("float32, us", *(f"{name} (95%)" for name in KINDS.values()))


def linear(facts: Sequence[Facts]) -> str:
    """Return float32's microseconds of each layer, and how many times as fast each kind of codes is."""
    lines = [[size, str(rows), *cells] for (_, size, rows), cells in _lines(facts)]
    return markdown([["inputs x outputs", "rows", *HEAD], *lines])


def recurrent(facts: Sequence[Facts]) -> str:
    """Return the same of recurrent layers, whose sizes are those of inputs and hidden states."""
    lines = [[name.upper(), size, *cells] for (name, size, _), cells in _lines(facts)]
    return markdown([["layer", "inputs x hidden", *HEAD], *lines])


def embedding(facts: Sequence[Facts]) -> str:
    """Return the same of embeddings, which have no dynamic form, by the number of texts at once."""
    lines = [[size, str(texts), *cells[:-1]] for (_, size, texts), cells in _lines(facts)]
    return markdown([["rows x columns", "texts", *HEAD[:-1]], *lines])


def _lines(facts: Sequence[Facts]) -> list[tuple[tuple[str, str, int], list[str]]]:
    found: dict[tuple[str, str, int], dict[str, Facts]] = {}
    for fact in facts:
        name, size, kind = fact["technique"].split("-")
        found.setdefault((name, size, fact["batch_size"]), {})[kind] = fact
    return [
        (
            key,
            [
                f"{1e3 * next(iter(kinds.values()))['baseline_latency_ms']:.1f}",
                *(interval(kinds[kind]) if kind in kinds else "-" for kind in KINDS),
            ],
        )
        for key, kinds in found.items()
    ]
