"""The techniques as points: file size, accuracy and speed-up, each with what is known of its error."""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from benchmarks.facts.record import Facts
from benchmarks.report.columns import MIB
from benchmarks.report.quality import ACCURACY, Quality, lost_of, quality_of
from benchmarks.report.rows import SHOWN as IN_ROWS
from benchmarks.report.rows import Row, rows

SHOWN = frozenset({*IN_ROWS, "training"})
"""Metrics of which a technique has at most one entry, or one per way of timing."""
Z = 1.959964
"""Standard deviations of a two-sided interval of 95%."""
KINDS = (
    ("baseline", r"^baseline$|^torch-float32$"),
    ("other engine", r"openvino|onnxruntime|torchao|torch-pruning|nncf"),
    ("student", r"student|distilled|narrow"),
    ("coded or shared", r"coded|shared"),
    ("quantization", r"int8|int4"),
    ("fewer channels", r"channels-\d|small-dense|^compression-\d"),
    ("pruning", r"l1-|random-|gradual|iterative|learned|structured|-of-"),
    ("float format", r"float16|-last"),
)
"""Kinds of techniques by what their names contain; the first that fits counts."""
Timed = tuple[str, int]
"""How a prediction was timed, and of how many images."""


@dataclass(frozen=True, slots=True)
class Share:
    """An accuracy in percent, or a score in its unit, and its 95% interval."""

    percent: float
    low: float
    high: float
    quality: Quality = ACCURACY

    @property
    def worth(self) -> float:
        """A number that is larger where the share is better."""
        return self.quality.worth(self.percent)

    def __str__(self) -> str:
        """Return it as tables show it."""
        value, low, high = map(self.quality.written, (self.percent, self.low, self.high))
        return f"{value} ({low}–{high})"


@dataclass(frozen=True, slots=True, eq=False)
class Point:
    """A technique: `kind` counts KINDS, `row_id` is that of its line; None is not known."""

    name: str
    kind: int
    row_id: str
    row: Row
    mib: float | None
    accuracy: Share | None
    lost_points: float | None

    def speed(self, how: Timed) -> Facts | None:
        """Return the facts of its time, None where it has none to claim."""
        return self.row.latency.get(how)

    def along(self, how: Timed | None) -> float | None:
        """Return its place along an axis: its speed-up, or its file's MiB where `how` is None."""
        if how is None:
            return self.mib
        fact = self.speed(how)
        return float(fact["speed_up"]) if fact else None


def points_of(facts: Iterable[Facts], key: str = "") -> list[Point]:
    """Return a point per technique, those of sweeps apart; `key` begins the ids of their lines."""
    found = rows(fact for fact in facts if fact["metric"] in SHOWN)
    return [_point(row, f"{key}-{i}") for i, row in enumerate(found)]


def _point(row: Row, row_id: str) -> Point:
    size = row.file.get("stored_bytes")
    return Point(
        row.technique,
        kind_of(row.technique),
        row_id,
        row,
        size / MIB if size else None,
        share_of(row.accuracy) if "total" in row.accuracy else None,
        lost_of(row.accuracy),
    )


def share_of(fact: Facts) -> Share:
    """Return the accuracy that a fact counted, or the score that it measured."""
    if fact.get("score") is not None:
        return _score_of(fact)
    correct, total = fact["correct"], fact["total"]
    low, high = wilson(correct, total)
    return Share(100 * correct / total, 100 * low, 100 * high)


def _score_of(fact: Facts) -> Share:
    """Return a score, with the interval of a mean; one of shares stays within 0 and 1."""
    quality, score, half = quality_of([fact]), fact["score"], Z * fact.get("score_error", 0.0)
    ends = [score - half, score + half]
    if quality.is_share:
        ends = [min(max(end, 0.0), 1.0) for end in ends]
    value, low, high = map(quality.shown, (score, *ends))
    return Share(value, low, high, quality)


def kind_of(technique: str) -> int:
    """Return the number in KINDS of a technique; beyond them is the number of all others."""
    found = (i for i, (_, words) in enumerate(KINDS) if re.search(words, technique))
    return next(found, len(KINDS))


def kind_name(number: int) -> str:
    """Return what a kind is called."""
    return KINDS[number][0] if number < len(KINDS) else "other"


def wilson(correct: int, total: int) -> tuple[float, float]:
    """Return the 95% interval of a share (Wilson 1927): it stays within 0 and 1.

    >>> [round(end, 3) for end in wilson(496, 500)]
    [0.98, 0.997]
    """
    share, z2 = correct / total, Z * Z / total
    middle = (share + z2 / 2) / (1 + z2)
    half = Z / (1 + z2) * math.sqrt(share * (1 - share) / total + z2 / (4 * total))
    return max(middle - half, 0.0), min(middle + half, 1.0)


def front(points: Iterable[Point], how: Timed | None) -> list[Point]:
    """Return the points that no other beats: as small, or as fast, and more accurate, or better."""
    sign = 1 if how is None else -1
    known = [
        (sign * along, -point.accuracy.worth, point)
        for point in points
        if point.accuracy and (along := point.along(how)) is not None
    ]
    best: list[Point] = []
    highest = -math.inf
    for _, lost, point in sorted(known, key=lambda found: found[:2]):
        if -lost > highest:
            best.append(point)
            highest = -lost
    return best


def judged_by(points: Iterable[Point]) -> Quality:
    """Return what points are judged by."""
    return quality_of(point.row.accuracy for point in points)


def timings(points: Sequence[Point]) -> list[Timed]:
    """Return how predictions were timed, wall clock and small batches first."""
    order = ("wall", "graph", "event", "best")
    found = {how for point in points for how in point.row.latency}
    return sorted(found, key=lambda how: (order.index(how[0]), how[1]))


def timed_name(how: Timed) -> str:
    """Return how a time is called: wall clock goes without saying."""
    return f"batch {how[1]}" + (f", {how[0]}" if how[0] != "wall" else "")


def timed_key(how: Timed) -> str:
    """Return how the script calls a time."""
    return f"{how[0]}-{how[1]}"
