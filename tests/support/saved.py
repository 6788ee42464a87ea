"""Runs in the shape in which pytest-benchmark saves them, made of facts."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

SUITE = {
    "workload": "cifar10",
    "data": "CIFAR-10",
    "device_name": "AMD EPYC",
    "num_threads": 2,
    "torch": "2.14.1",
    "dataset_fingerprint": "d",
    "recipe_fingerprint": "r",
    "baseline_fingerprint": "b",
}
TIMES = ("min", "max", "mean", "median", "stddev", "iqr", "ops", "total")


def node_id(fact: dict[str, Any]) -> str:
    """Return the node id of a fact's benchmark."""
    timed = [str(fact[key]) for key in ("timing", "batch_size", "do") if key in fact]
    name = "-".join([fact["device"], fact["technique"], *timed])
    return f"benchmarks/test_{fact['metric']}.py::test_{fact['metric']}[{name}]"


def saved(
    facts: Iterable[dict[str, Any]],
    *,
    day: int = 1,
    commit: str = "0123456789",
    suite: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Return a saved run of `facts`, of a day after 2026-01-01."""
    stats = {**dict.fromkeys(TIMES, 1.0), "rounds": 5, "iterations": 1, "outliers": "0;0"}
    entries = [{"fullname": node_id(f), "stats": stats, "extra_info": f} for f in facts]
    return {
        "machine_info": {"cpu": {"brand_raw": "AMD EPYC"}, "suite": {**SUITE, **(suite or {})}},
        "commit_info": {"id": commit, "dirty": False},
        "datetime": f"2026-{1 + day // 28:02}-{1 + day % 28:02}T12:00:00+00:00",
        "benchmarks": entries,
    }


def save(path: Path, *arguments: Any, **options: Any) -> Path:
    """Write a saved run to `path`, and return it."""
    path.write_text(json.dumps(saved(*arguments, **options)))
    return path
