"""The table's rows: the facts of one technique on one device."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from benchmarks.facts.record import Facts

METRICS = ("size", "accuracy", "score", "cost")
SHOWN = (*METRICS, "latency")
"""What a row of a table shows; other metrics have tables of their own."""
PROMISES = {"accuracy": "drop", "score": "drop", "latency": "speed"}
"""By metric, what its target is about, where that is another word."""


@dataclass(slots=True)
class Row:
    """The facts of one technique on one device; a metric that did not run is empty.

    `accuracy` holds the score of a workload that is judged by another metric. `unclaimed` says why it
    has no latency to claim: "simulated" or "size only"; else it is empty. `left_out` names the layers
    that the technique did not compress, where the run recorded them, and `missed` what it promised
    and did not reach.
    """

    device: str
    technique: str
    unclaimed: str
    size: Facts = field(default_factory=dict)
    accuracy: Facts = field(default_factory=dict)
    cost: Facts = field(default_factory=dict)
    latency: dict[tuple[str, int], Facts] = field(default_factory=dict)
    met: list[bool] = field(default_factory=list)
    missed: list[str] = field(default_factory=list)
    in_float: set[str] = field(default_factory=set)
    left_out: set[str] = field(default_factory=set)
    left_out_count: int = 0

    @property
    def file(self) -> Facts:
        """The facts that know the file, of whichever metric ran."""
        return self.size or self.accuracy

    @property
    def noisy(self) -> bool:
        """Whether a time of it is that of a busy machine."""
        return any(fact.get("noisy") for fact in self.latency.values())


def rows(facts: Iterable[Facts], *, sweep: bool = False) -> list[Row]:
    """Return a row for each device and technique, the baseline first, else in order."""
    table: dict[tuple[str, str], Row] = {}
    for fact in facts:
        if bool(fact.get("sweep")) != sweep:
            continue
        key = (fact["device"], fact["technique"])
        row = table.setdefault(key, Row(*key, _unclaimed(fact)))
        if fact["metric"] == "latency":
            row.latency[fact["timing"], fact["batch_size"]] = fact
        elif fact["metric"] == "training":
            row.accuracy = row.cost = fact
        elif fact["metric"] == "score":
            row.accuracy = fact
        elif fact["metric"] in METRICS:
            setattr(row, fact["metric"], fact)
        row.in_float |= set(fact.get("in_float", ()))
        _note_left_out(row, fact.get("left_out", ()))
        _note_target(row, fact)
    return sorted(table.values(), key=lambda row: (row.device, row.technique != "baseline"))


def ends(rows: list[Row]) -> list[int]:
    """Return the smallest and the largest batch that the rows were timed at."""
    batches = {batch for row in rows for timing, batch in row.latency if timing == "wall"}
    return sorted({min(batches), max(batches)}) if batches else []


def _unclaimed(fact: Facts) -> str:
    if fact["simulated"]:
        return "simulated"
    return "size only" if fact.get("size_only") else ""


def _note_target(row: Row, fact: Facts) -> None:
    if fact.get("target_met") is None:
        return
    row.met.append(bool(fact["target_met"]))
    promise = PROMISES.get(fact["metric"], str(fact["metric"]))
    if not fact["target_met"] and promise not in row.missed:
        row.missed.append(promise)


def _note_left_out(row: Row, found: Any) -> None:
    """Note what the technique left out: names, names with their reasons, or only how many."""
    if isinstance(found, int):
        row.left_out_count = max(row.left_out_count, found)
    else:
        row.left_out |= set(found)
        row.left_out_count = max(row.left_out_count, len(row.left_out))
