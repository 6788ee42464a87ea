"""Saved runs as the report reads them, and which of their entries may stand in one table."""

import gc
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from benchmarks.facts.record import Facts
from benchmarks.facts.schema import FACTS
from benchmarks.gate.evidence import damage
from benchmarks.gate.history import History, read_history
from benchmarks.report.quality import QUALITIES
from benchmarks.report.reference import INT8_UNITS
from compression.errors import CompressionError

NEEDED = {
    "": ("technique", "device", "workload", "data", "simulated"),
    "size": ("stored_bytes",),
    "accuracy": ("correct", "total"),
    "score": ("score", "total", "score_name", "score_unit", "higher_is_better"),
    "latency": ("timing", "batch_size", "latency_ms", "speed_up", "speed_up_low", "speed_up_high"),
    "training": ("correct", "total"),
    "cost": ("seconds",),
}
"""What the sections read without asking, of each metric."""
Seen = dict[str, tuple[Facts, Facts]]
"""By node id the facts of the newest run read, as they stand in the file and as they were checked."""
UNREAD = frozenset({"layers", "correct_images", "scores"})
"""Facts that no section reads, and that are large; the gate reads them from the file."""


@dataclass(frozen=True, slots=True)
class Run:
    """What a run measured, by node id; `machine` and `commit` as pytest-benchmark has them."""

    path: Path
    date: str
    machine: Mapping[str, Any]
    commit: Mapping[str, Any]
    facts: Mapping[str, Facts]

    @property
    def revision(self) -> str:
        """The commit in short, and whether the working tree had other changes."""
        known = str(self.commit.get("id", ""))[:7]
        return f"{known}{' with changes' if self.commit.get('dirty') else ''}" or "unknown"

    @property
    def suite(self) -> Mapping[str, Any]:
        """What the suite says of the machine and the data."""
        return _mapping(self.machine.get("suite"))

    @property
    def device_name(self) -> str:
        """The processor and, where there is one, the card."""
        cpu = _mapping(self.machine.get("cpu"))
        flags = cpu.get("flags")
        known = set(map(str, flags)) if isinstance(flags, list) else set()
        units = [name for flag, name in INT8_UNITS.items() if flag in known]
        named = self.suite.get("device_name") or cpu.get("brand_raw") or "unknown processor"
        missing = [unit for unit in units if unit not in str(named)]
        joint = " and " if " with " in str(named) else " with "
        return joint.join(filter(None, [str(named), " and ".join(missing)]))


@dataclass(slots=True)
class Setting:
    """What may be compared: the newest entry of each benchmark of one workload on one machine."""

    workload: str
    data: str
    device: str
    machine: str
    facts: dict[str, Facts] = field(default_factory=dict)
    runs: list[Run] = field(default_factory=list)

    @property
    def judged(self) -> int:
        """How many techniques have an accuracy, those of sweeps apart."""
        found = (f for f in self.facts.values() if f["metric"] in QUALITIES and not f.get("sweep"))
        return sum(1 for _ in found)


def read_runs(paths: Sequence[Path]) -> list[Run]:
    """Return the saved runs, the oldest first; CompressionError names the file that is none."""
    collected = gc.isenabled()
    gc.disable()  # JSON has no cycles, and looking for some takes a fifth of the time
    seen: Seen = {}
    try:
        found = [run_of(read_history(path), seen) for path in paths]
    finally:
        if collected:
            gc.enable()
    return sorted(found, key=lambda run: run.date)


def run_of(history: History, seen: Seen) -> Run:
    """Return a saved run's facts, checked; CompressionError where they are not of this suite.

    What a benchmark says as in the run before is not checked again: size and accuracy rarely change.
    """
    known = {name: facts for name, facts in history.facts.items() if "metric" in facts}
    if not known:
        raise CompressionError(
            f"{history.path}: none of its {len(history.entries)} benchmarks records a metric of this "
            "suite; expected a run of pytest benchmarks/"
        )
    try:
        for name, found in known.items():
            if name not in seen or seen[name][0] != found:
                seen[name] = (found, checked(name, found))
    except ValueError as error:
        raise CompressionError(f"{history.path}: {error}") from error
    facts = {name: seen[name][1] for name in known}
    return Run(history.path, history.date, history.machine, history.commit, facts)


def checked(name: str, facts: Facts) -> Facts:
    """Return the facts that this suite knows; ValueError where one cannot be used."""
    for key in (*NEEDED[""], *NEEDED.get(str(facts["metric"]), ())):
        if key not in facts:
            raise ValueError(f"{name} lacks its {key}")
    known = {key: value for key, value in facts.items() if key in FACTS and key not in UNREAD}
    for key, value in known.items():
        if key != "left_out" and not _holds(key, value):  # it was once a count
            raise ValueError(f"{name} has a {key} of {json.dumps(value)[:60]}")
    if why := damage(known):
        raise ValueError(f"{name} has {why}")
    return known


def _holds(key: str, value: Any) -> bool:
    """Tell whether a fact may have this value; what is said in every run is looked at once."""
    if isinstance(value, str | int):  # bool and int are equal, and not the same
        return _known(key, type(value).__name__, value)
    return FACTS[key].holds(value)


@lru_cache(maxsize=1 << 16)
def _known(key: str, _: str, value: str | int) -> bool:
    return FACTS[key].holds(value)


def settings(runs: Iterable[Run]) -> list[Setting]:
    """Return what may be compared, that of most techniques first; `runs` go from old to new."""
    found: dict[tuple[str, ...], Setting] = {}
    for run in runs:
        suite = run.suite
        threads = suite.get("num_threads")
        place = ", ".join(
            part
            for part in (
                run.device_name,
                f"{threads} thread{'s' * (threads != 1)}" if threads else "",
                f"torch {suite['torch']}" if "torch" in suite else "",
            )
            if part
        )
        for name, facts in run.facts.items():
            key = (facts["workload"], facts["data"], facts["device"], place)
            setting = found.setdefault(key, Setting(*key))
            setting.facts[name] = facts
            if not setting.runs or setting.runs[-1] is not run:
                setting.runs.append(run)
    return sorted(found.values(), key=lambda setting: -setting.judged)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
