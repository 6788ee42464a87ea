"""A saved run of pytest-benchmark, read with care."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compression.errors import CompressionError

# A NaN here makes every `--benchmark-compare-fail` pass, and a field that is missing ends the run in a
# traceback, so that all are read before any test runs.
_TIMES = ("min", "max", "mean", "median")
_SPREADS = ("stddev", "iqr")
_SHOWN = ("rounds", "iterations", "outliers")


@dataclass(frozen=True, slots=True)
class History:
    """The entries of one saved run by node id, and what it says of its machine and data."""

    path: Path
    entries: Mapping[str, Mapping[str, Any]]
    suite: Mapping[str, Any]


def read_history(path: Path) -> History:
    """Return the saved run at `path`; CompressionError says in one sentence why it cannot be used."""
    try:
        saved = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CompressionError(f"{path}: expected a saved run, {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise CompressionError(f"{path}: not a JSON file, or truncated ({error})") from error
    benchmarks = saved.get("benchmarks") if isinstance(saved, dict) else None
    if not isinstance(benchmarks, list) or not benchmarks:
        raise CompressionError(
            f"{path}: expected a run saved by pytest-benchmark with at least one benchmark"
        )
    entries: dict[str, Mapping[str, Any]] = {}
    for entry in benchmarks:
        name = _checked_name(path, entry)
        if name in entries:
            raise CompressionError(f"{path}: {name} stands in it twice; save the run again")
        entries[name] = entry
    machine = saved.get("machine_info")
    suite = machine.get("suite") if isinstance(machine, dict) else None
    return History(path, entries, suite if isinstance(suite, dict) else {})


def _checked_name(path: Path, entry: Any) -> str:
    name = entry.get("fullname") if isinstance(entry, dict) else None
    if not isinstance(name, str) or not isinstance(entry.get("stats"), dict):
        raise CompressionError(f"{path}: an entry lacks its fullname or its stats")
    stats = entry["stats"]
    for field in (*_TIMES, *_SPREADS):
        value = stats.get(field)
        usable = isinstance(value, int | float) and math.isfinite(value)
        if not usable or value < 0 or (value == 0 and field in _TIMES):
            raise CompressionError(
                f"{path}: {name} has a {field} of {value!r} s; the run cannot be trusted"
            )
    if missing := [field for field in _SHOWN if field not in stats]:
        raise CompressionError(f"{path}: {name} lacks {', '.join(missing)} in its stats")
    if not isinstance(entry.get("extra_info", {}), dict):
        raise CompressionError(f"{path}: {name} has extra_info that is no object")
    return name
