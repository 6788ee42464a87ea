"""A saved run of pytest-benchmark, read with care."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.gate.evidence import LARGEST, is_number, shorten
from compression.errors import CompressionError

COUNT = "num_benchmarks"
"""How many entries a run was saved with, so that one taken out is missed."""

# A NaN here makes every `--benchmark-compare-fail` pass, and a field that is missing or no number ends
# the run in a traceback. So all are read before any test runs.
_TIMES = ("min", "max", "mean", "median")
_SPREADS = ("stddev", "iqr")
_RATES = ("ops",)
_COUNTS = ("rounds", "iterations")


@dataclass(frozen=True, slots=True)
class History:
    """The entries of a saved run by node id, and what it says of its machine, data, commit and date."""

    path: Path
    entries: Mapping[str, Mapping[str, Any]]
    machine: Mapping[str, Any]
    commit: Mapping[str, Any]
    date: str

    @property
    def suite(self) -> Mapping[str, Any]:
        """What the suite says of the machine and the data."""
        return _mapping(self.machine.get("suite"))

    @property
    def facts(self) -> dict[str, Any]:
        """What each entry recorded, by node id."""
        return {name: entry.get("extra_info", {}) for name, entry in self.entries.items()}


def read_history(path: Path) -> History:
    """Return the saved run at `path`; CompressionError says in one sentence why it cannot be used."""
    saved = _read_json(path)
    benchmarks = saved.get("benchmarks") if isinstance(saved, dict) else None
    if not isinstance(benchmarks, list) or not benchmarks:
        raise CompressionError(
            f"{path}: expected a run saved by pytest-benchmark with at least one benchmark"
        )
    entries: dict[str, Mapping[str, Any]] = {}
    for entry in benchmarks:
        name = _check_entry(path, entry)
        if name in entries:
            raise CompressionError(f"{path}: {name} stands in it twice; save the run again")
        entries[name] = entry
    if saved.get(COUNT, len(entries)) != len(entries):
        raise CompressionError(
            f"{path}: expected the {shorten(saved[COUNT])} entries of its {COUNT}, found "
            f"{len(entries)}; save the run again"
        )
    machine, commit = (_mapping(saved.get(name)) for name in ("machine_info", "commit_info"))
    return History(path, entries, machine, commit, str(saved.get("datetime", "")))


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CompressionError(f"{path}: expected a saved run, {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise CompressionError(f"{path}: not a JSON file, or truncated ({error})") from error


def _check_entry(path: Path, entry: Any) -> str:
    name = entry.get("fullname") if isinstance(entry, dict) else None
    if not isinstance(name, str) or not isinstance(entry.get("stats"), dict):
        raise CompressionError(f"{path}: an entry lacks its fullname or its stats")
    stats = entry["stats"]
    if missing := [field for field in (*_COUNTS, "outliers") if field not in stats]:
        raise CompressionError(f"{path}: {name} lacks {', '.join(missing)} in its stats")
    for field in (*_TIMES, *_SPREADS, *_RATES, *_COUNTS, "outliers"):
        value = stats.get(field)
        if not _usable(field, value):
            unit = " s" if field in (*_TIMES, *_SPREADS) else ""
            raise CompressionError(
                f"{path}: {name} has a {field} of {shorten(value)}{unit}; the run cannot be trusted"
            )
    if not isinstance(entry.get("extra_info", {}), dict):
        raise CompressionError(f"{path}: {name} has extra_info that is no object")
    return name


def _usable(field: str, value: Any) -> bool:
    if type(value) is float and 0 < value <= LARGEST:  # nearly all are, of a hundred thousand
        return field not in _COUNTS and field != "outliers"
    if field == "outliers":
        return isinstance(value, str)
    if not is_number(value) or (field in _COUNTS and not isinstance(value, int)):
        return False
    return bool(value > 0 or field in _SPREADS)
