"""A saved run of benchmarks/references, as the READMEs' tables read it."""

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.facts.record import Facts
from compression.errors import CompressionError

INT8_UNITS = {"avx512_vnni": "AVX-512 VNNI", "amx_int8": "AMX"}
"""By the flags of a processor, what it multiplies int8 on: vectors of 512 bits, tile registers."""


@dataclass(frozen=True, slots=True)
class Reference:
    """What one saved run measured: its `facts` in order, and the file as it was `saved`."""

    path: Path
    facts: tuple[Facts, ...]
    saved: Mapping[str, Any]

    def of(self, metrics: Collection[str]) -> list[Facts]:
        """Return the facts of some metrics, in order; CompressionError where there is none."""
        found = [fact for fact in self.facts if fact["metric"] in metrics]
        if not found:
            raise CompressionError(f"{self.path.name} has no facts of {', '.join(metrics)}")
        return found

    def caption(self, facts: Iterable[Facts]) -> str:
        """Return the data of `facts`, and the hardware, versions, date and commit of the run."""
        facts = list(facts)
        machine, commit = self.saved["machine_info"], self.saved["commit_info"]
        suite, cpu = machine.get("suite", {}), machine["cpu"]
        threads, torch = suite.get("num_threads"), suite.get("torch")
        cards = {
            fact.get("device_name", suite.get("device_name"))
            for fact in facts
            if fact["device"] == "cuda"
        }
        units = " and ".join(name for flag, name in INT8_UNITS.items() if flag in cpu["flags"])
        known = [
            "; ".join(dict.fromkeys(fact["data"] for fact in facts)),
            *sorted(filter(None, cards)),
            " with ".join(filter(None, [cpu["brand_raw"], units])),
            f"{cpu['count']} cores",
            f"{threads} thread{'s' * (threads > 1)}" if threads else "",
            f"torch {torch}" if torch else "",
            f"Python {machine['python_version']}",
            str(self.saved["datetime"])[:10],
            f"commit {commit['id'][:7]}{' with changes' * commit['dirty']}",
        ]
        return ", ".join(part for part in known if part)


def read_reference(path: Path) -> Reference:
    """Return the saved run at `path`; CompressionError where there is none."""
    try:
        saved = json.loads(path.read_text(encoding="utf-8"))
        facts = tuple(entry["extra_info"] for entry in saved["benchmarks"])
    except OSError as error:
        raise CompressionError(f"{path.name}: expected a saved run, {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise CompressionError(f"{path.name}: no saved run ({error})") from error
    return Reference(path, facts, saved)
