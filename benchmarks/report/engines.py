"""torchvision's networks in INT8, each by several engines: one line per network."""

from collections.abc import Sequence

from benchmarks.facts.record import Facts
from benchmarks.report.columns import significant
from benchmarks.report.table import markdown

OURS = "compression-int8"
NAMES = {OURS: "ours", "openvino-int8-nncf": "OpenVINO", "onnxruntime-int8": "ORT"}
"""How a table calls the engines that make INT8 files."""
FLOAT = "torch-float32"


def engines(facts: Sequence[Facts]) -> str:
    """Return SQNR, layers in float, kernels and times of each network, beside other engines' times."""
    found = {(*_split(fact["technique"]), fact["batch_size"]): fact for fact in facts}
    batches = sorted({batch for _, _, batch in found})
    head = ["network", *(f"{name}, dB" for name in NAMES.values()), "in float", "kernels"]
    for batch in batches:
        head += [f"batch {batch}, ms", "x float32", *(f"x {n}" for n in list(NAMES.values())[1:])]
    lines = []
    for network in dict.fromkeys(network for network, _, _ in found):
        first = {engine: found.get((network, engine, batches[0])) for engine in NAMES}
        line = [network, *(_decibels(fact) for fact in first.values())]
        ours = first[OURS]
        line += (
            ["-", "-"] if ours is None else [str(len(ours["stayed"])), str(ours["integer_kernels"])]
        )
        for batch in batches:
            line += _times({e: found.get((network, e, batch)) for e in (*NAMES, FLOAT)})
        lines.append(line)
    return markdown([head, *lines])


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
