"""Which row is the best within a budget: `file=3MiB latency@64=20ms drop=1pt`."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from benchmarks.facts.record import Facts
from benchmarks.report.columns import in_bytes, listed, significant
from benchmarks.report.quality import ACCURACY, Quality, quality_of
from benchmarks.report.rows import Row, rows
from compression.errors import CompressionError

UNITS: dict[str, dict[str, float]] = {
    "file": {"MiB": 2**20, "KiB": 2**10, "GiB": 2**30, "B": 1, "bytes": 1},
    "latency": {"ms": 1, "us": 1e-3, "s": 1e3},
    "drop": {"pt": 0.01, "%": 0.01},
    "accuracy": {"%": 0.01, "pt": 0.01},
}
"""By part, what its number may be in: of bytes, of ms, and of shares of the images."""
UNJUDGED = ("file", "latency")
"""Parts that are the same for every metric."""
PART = re.compile(r"(\w+)(?:@([1-9]\d*))?=(.+)")
NUMBER = re.compile(r"(\d+(?:\.\d+)?)([^\d.]*)")
ROUNDING = 1e-9
RULE = (
    "the best row loses least accuracy; of those with as many images correct the faster counts, then "
    "the smaller"
)


@dataclass(frozen=True, slots=True)
class Limit:
    """One part of a budget: `value` in bytes, ms or shares; without `batch` it is of the smallest."""

    part: str
    value: float
    given: str
    batch: int | None = None


@dataclass(frozen=True, slots=True)
class Candidate:
    """A row as a budget sees it: None, or no batch, where the run did not measure it.

    `batch` is the smallest that its device was timed at, `unclaimed` why it has no latency to claim;
    `noisy`: its times are those of a busy machine.
    """

    name: str
    unclaimed: str
    file_bytes: int | None
    accuracy: float | None
    drop: float | None
    batch: int
    latency_ms: Mapping[int, float] = field(default_factory=dict)
    noisy: bool = False
    quality: Quality = ACCURACY

    def value(self, limit: Limit) -> float | None:
        """Return what a limit is about."""
        if limit.part == "latency":
            return self.latency_ms.get(limit.batch or self.batch)
        return {"file": self.file_bytes, "drop": self.drop}.get(limit.part, self.accuracy)

    def order(self, batch: int | None) -> tuple[float, ...]:
        """Return what RULE compares, the smaller the better; times are those of a batch."""
        known = (self.drop, self.latency_ms.get(batch or self.batch), self.file_bytes)
        return tuple(math.inf if value is None else round(value, 9) for value in known)

    def __str__(self) -> str:
        """Return the name and what is known."""
        times = [f"{significant(ms)} ms at {n}" for n, ms in sorted(self.latency_ms.items())]
        file = "" if self.file_bytes is None else in_bytes(self.file_bytes)
        drop = "" if self.drop is None else self._lost(self.drop)
        noisy = "of a busy machine" if self.noisy else ""
        return f"{self.name}: {', '.join(filter(None, [file, drop, *times, noisy]))}"

    def _lost(self, drop: float) -> str:
        what, _, unit = self.quality.lost_head.partition(" ")
        return f"{what} {self.quality.written_lost(self.quality.shown(drop))} {unit}".strip()


@dataclass(frozen=True, slots=True)
class Choice:
    """The rows that keep to a budget, the best first, and the names of the others by what they miss.

    Of the parts in `unjudged` the run measured nothing.
    """

    fitting: tuple[Candidate, ...]
    out: Mapping[str, tuple[str, ...]]
    unjudged: tuple[str, ...]

    def lines(self, *, width: int = 100) -> list[str]:
        """Return the best row, the runner-up, and why the others fell out, in a few lines."""
        none = "no row keeps to all of it" if self.out else "nothing of it was measured"
        told = [f"best: {self.fitting[0] if self.fitting else none}"]
        told += [f"runner-up: {row}" for row in self.fitting[1:2]]
        others = [row.name for row in self.fitting[2:]]
        told += [listed("fit too", others, width=width)] if others else []
        told += [listed(f"out, {why}", found, width=width) for why, found in self.out.items()]
        return told + [f"not judged, as nothing was measured: {part}" for part in self.unjudged]


def parse_budget(text: str, quality: Quality = ACCURACY) -> tuple[Limit, ...]:
    """Return the limits of a budget; CompressionError names the part that cannot be read.

    Of another quality than accuracy `score=` limits the score, and `drop=` is in its unit.

    >>> [limit.value for limit in parse_budget("file=3KiB drop=1pt")]
    [3072.0, 0.01]
    """
    limits: dict[tuple[str, int | None], Limit] = {}
    for given in re.split(r"[\s,]+", text.strip()):
        limit = _limit(given, units_of(quality))
        if (limit.part, limit.batch) in limits:
            raise CompressionError(
                f"expected one limit of a kind, found {limits[limit.part, limit.batch].given} and "
                f"{given}; drop one"
            )
        limits[limit.part, limit.batch] = limit
    return tuple(limits.values())


def units_of(quality: Quality) -> dict[str, dict[str, float]]:
    """Return by part what its number may be in, where rows are judged by `quality`."""
    if quality == ACCURACY:
        return UNITS
    own = UNITS["drop"] if quality.is_share else {quality.unit: 1.0}
    return {**{part: UNITS[part] for part in UNJUDGED}, "drop": own, "score": own}


def _limit(given: str, parts: dict[str, dict[str, float]]) -> Limit:
    asked = PART.fullmatch(given)
    if not asked or asked[1] not in parts or (asked[2] and asked[1] != "latency"):
        raise CompressionError(
            f"expected file=, latency=, latency@BATCH=, drop= or {[*parts][-1]}=, found {given!r}; "
            'write it like "file=3MiB latency=2ms drop=1pt"'
        )
    units = parts[asked[1]]
    value = NUMBER.fullmatch(asked[3])
    if not value or value[2] not in units:
        remedy = f"{given.partition('=')[0]}={value[1] if value else 3}{next(iter(units))}"
        raise CompressionError(
            f"{asked[1]}: expected a number and one of {', '.join(units)}, found {asked[3]!r}; write "
            f"it like {remedy}"
        )
    batch = int(asked[2]) if asked[2] else None
    return Limit(asked[1], float(value[1]) * units[value[2]], given, batch)


def choose(facts: Iterable[Facts], budget: Sequence[Limit]) -> Choice:
    """Return which rows keep to a budget, in the order of RULE, and what the others miss.

    A limit of which the run measured nothing is not judged. A row without a latency to claim keeps to
    no limit of it.
    """
    found = candidates(rows(facts))
    judged = [limit for limit in budget if any(row.value(limit) is not None for row in found)]
    out: dict[str, list[str]] = {}
    fitting = []
    for row in found:
        missed = dict.fromkeys(
            reason for limit in budget if (reason := _miss(row, limit, judged=limit in judged))
        )
        for reason in missed:
            out.setdefault(reason, []).append(row.name)
        if judged and not missed:
            fitting.append(row)
    batch = next((limit.batch for limit in budget if limit.part == "latency"), None)
    fitting.sort(key=lambda row: row.order(batch))
    unjudged = tuple(limit.given for limit in budget if limit not in judged)
    return Choice(tuple(fitting), {k: tuple(names) for k, names in out.items()}, unjudged)


def candidates(found: Sequence[Row]) -> list[Candidate]:
    """Return the rows as a budget sees them, named with their device where there are several."""
    several = len({row.device for row in found}) > 1
    timed: dict[str, set[int]] = {row.device: set() for row in found}
    for row in found:
        timed[row.device] |= {batch for timing, batch in row.latency if timing == "wall"}
    return [
        Candidate(
            name=f"{row.device} {row.technique}" if several else row.technique,
            unclaimed=row.unclaimed,
            file_bytes=row.file.get("stored_bytes"),
            accuracy=row.accuracy.get("score", row.accuracy.get("accuracy")),
            drop=row.accuracy.get("score_lost", row.accuracy.get("drop")),
            batch=min(timed[row.device], default=1),
            noisy=row.noisy,
            quality=quality_of([row.accuracy]),
            latency_ms={
                n: fact["latency_ms"] for (t, n), fact in row.latency.items() if t == "wall"
            },
        )
        for row in found
    ]


def _miss(row: Candidate, limit: Limit, *, judged: bool) -> str:
    """Return why a row does not keep to a limit; empty where it does, or nothing can be said."""
    if limit.part == "latency" and row.unclaimed:
        return f"no latency, {row.unclaimed}"
    value, (what, _, most) = row.value(limit), limit.given.partition("=")
    if value is None:
        return f"{what} not measured" if judged else ""
    if limit.part == "accuracy" or (limit.part == "score" and row.quality.higher_is_better):
        return f"{what} below {most}" if value < limit.value - ROUNDING else ""
    return f"{what} above {most}" if value > limit.value + ROUNDING else ""
