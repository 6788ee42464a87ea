"""torchvision's networks in INT8, each by several engines: one line per network."""

from collections.abc import Sequence
from itertools import chain

from benchmarks.facts.record import Facts
from benchmarks.report.columns import significant
from benchmarks.report.table import markdown

OURS = "compression-int8"
NAMES = {OURS: "ours", "openvino-int8-nncf": "OpenVINO", "onnxruntime-int8": "ORT"}
"""How a table calls the engines that make INT8 files."""
FLOAT = "torch-float32"


def engines(facts: Sequence[Facts]) -> str:
    """Return SQNR of each network on each engine, and our layers in float and integer kernels."""
    found, batches = _by_engine(facts)
    lines = [["network", *(f"{name}, dB" for name in NAMES.values()), "layers in float", "kernels"]]
    for network, by_engine in found.items():
        first = {engine: by_engine.get((engine, batches[0])) for engine in NAMES}
        ours = first[OURS]
        counts = ["-", "-"]
        if ours is not None:
            counts = [str(len(ours["stayed"])), str(ours["integer_kernels"])]
        lines.append([network, *map(_decibels, first.values()), *counts])
    return markdown(lines)


def engine_times(facts: Sequence[Facts]) -> str:
    """Return our milliseconds of each network and batch, and how many times as long others take."""
    found, batches = _by_engine(facts)
    lines = [["network"]]
    for batch in batches:
        lines[0] += [f"{batch} at once, ms", "float32", *list(NAMES.values())[1:]]
    for network, by_engine in found.items():
        times = [_times({e: by_engine.get((e, b)) for e in (*NAMES, FLOAT)}) for b in batches]
        lines.append([network, *chain.from_iterable(times)])
    return markdown(lines)


def _by_engine(
    facts: Sequence[Facts],
) -> tuple[dict[str, dict[tuple[str, int], Facts]], list[int]]:
    """Return the facts of each network by engine and batch, and the batches."""
    found: dict[str, dict[tuple[str, int], Facts]] = {}
    for fact in facts:
        network, engine = _split(fact["technique"])
        found.setdefault(network, {})[engine, fact["batch_size"]] = fact
    return found, sorted({fact["batch_size"] for fact in facts})


def _split(technique: str) -> tuple[str, str]:
    network, _, engine = technique.partition("-")
    return network, engine


def _decibels(fact: Facts | None) -> str:
    return "-" if fact is None else f"{fact['sqnr_db']:.1f}"


def _times(by_engine: dict[str, Facts | None]) -> list[str]:
    """Return our milliseconds, and how many times as long each other engine takes."""
    ours = by_engine[OURS]
    if ours is None:
        return ["-"] * (len(NAMES) + 1)
    others = [by_engine[name] for name in (FLOAT, *list(NAMES)[1:])]
    ratios = ["-" if o is None else f"{o['latency_ms'] / ours['latency_ms']:.2f}" for o in others]
    return [significant(ours["latency_ms"]), *ratios]
