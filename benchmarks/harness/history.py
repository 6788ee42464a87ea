"""A saved run of pytest-benchmark, read with care."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compression.errors import CompressionError


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
        raise CompressionError(f"{path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise CompressionError(f"{path}: not a JSON file, or truncated ({error})") from error
    benchmarks = saved.get("benchmarks") if isinstance(saved, dict) else None
    if not isinstance(benchmarks, list) or not benchmarks:
        raise CompressionError(
            f"{path}: expected a run saved by pytest-benchmark with at least one benchmark"
        )
    entries = {}
    for entry in benchmarks:
        _check(path, entry)
        entries[entry["fullname"]] = entry
    machine = saved.get("machine_info")
    suite = machine.get("suite") if isinstance(machine, dict) else None
    return History(path, entries, suite if isinstance(suite, dict) else {})


def _check(path: Path, entry: Any) -> None:
    mean = None
    if isinstance(entry, dict) and isinstance(entry.get("stats"), dict):
        mean = entry["stats"].get("mean")
    name = entry.get("fullname") if isinstance(entry, dict) else None
    if not isinstance(name, str) or not isinstance(mean, int | float):
        raise CompressionError(f"{path}: an entry lacks its fullname or its stats")
    if not math.isfinite(mean) or mean <= 0:
        raise CompressionError(f"{path}: {name} has a mean of {mean} s; the run cannot be trusted")
    if not isinstance(entry.get("extra_info", {}), dict):
        raise CompressionError(f"{path}: {name} has extra_info that is no object")
