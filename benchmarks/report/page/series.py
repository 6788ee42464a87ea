"""What each technique measured run after run on one machine, and where its level changed."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from benchmarks.facts.record import Facts
from benchmarks.gate.rules import TOLERANCES
from benchmarks.report.columns import MIB, significant
from benchmarks.report.page.levels import (
    FEWEST_RUNS,
    Interval,
    can_judge,
    exact_changes,
    noisy_changes,
    smallest_step,
)
from benchmarks.report.page.points import timed_name
from benchmarks.report.page.runs import Run, Setting
from benchmarks.report.quality import quality_of, value_of

MOST_VALUES = 60_000
"""Values on a page: with more of them the oldest runs are not drawn."""
METRICS = ("size", "accuracy", "score", "latency")


@dataclass(frozen=True, slots=True)
class Measure:
    """What a series holds: its name, how its values are written, and which way is better."""

    name: str
    form: Callable[[float], str]
    change: Callable[[float, float], str]
    more_is_better: bool
    limit: Callable[[float, int], float]
    """The value beyond which the gate fails after a level; its second argument is a count of images."""


@dataclass(slots=True)
class Series:
    """The values of one technique, at the numbers of their runs; `starts` are of new levels."""

    technique: str
    measure: Measure
    at: list[int]
    values: list[float]
    facts: list[Facts]
    starts: list[int]
    finds: float | None = None
    """The smallest step, as a share, that its noise lets be found; None where exact or not judged."""

    @property
    def levels(self) -> list[float]:
        """The mean of each level; of exact values every one is the same."""
        ends = [0, *self.starts, len(self.values)]
        return [sum(self.values[a:b]) / (b - a) for a, b in pairwise(ends)]

    @property
    def limits(self) -> list[float]:
        """How far the gate lets the run after each level go."""
        images = int(self.facts[-1].get("total", 1))
        return [self.measure.limit(level, images) for level in self.levels]

    def worse(self, step: int) -> bool:
        """Tell whether a change of level was for the worse."""
        before, after = self.levels[step : step + 2]
        return (after < before) == self.measure.more_is_better


def _size_limit(level: float, _: int) -> float:
    return level * (1 + TOLERANCES["size"][0])


def _accuracy_limit(level: float, images: int) -> float:
    share = level / 100
    return level - 100 * TOLERANCES["accuracy unpaired"][0] * math.sqrt(
        max(2 * share * (1 - share) / images, 0.0)
    )


def _speed_limit(level: float, _: int) -> float:
    return level * (1 - TOLERANCES["speed-up"][0])


def _share(before: float, after: float) -> str:
    return f"{after / before - 1:+.2%}"


def _points(before: float, after: float) -> str:
    return f"{after - before:+.2f} points"


def _bytes(before: float, after: float) -> str:
    return f"{round((after - before) * MIB):+,} bytes"


SIZE = Measure("file, MiB", "{:.3f}".format, _bytes, False, _size_limit)
ACCURACY = Measure("accuracy, %", "{:.2f}".format, _points, True, _accuracy_limit)


def series_of(setting: Setting) -> tuple[list[Run], list[Series]]:
    """Return the newest runs of a setting and what they measured of size, accuracy and speed-up."""
    names = {name for name, facts in setting.facts.items() if _drawn(facts)}
    runs = setting.runs[-max(MOST_VALUES // max(len(names), 1), 10) :]
    found: dict[str, Series] = {}
    for i, run in enumerate(runs):
        for name in run.facts.keys() & names:
            facts = run.facts[name]
            same = quality_of([facts]) == quality_of([setting.facts[name]])
            if same and (facts["workload"], facts["data"]) == (setting.workload, setting.data):
                if name not in found:
                    found[name] = Series(facts["technique"], _measure(facts), [], [], [], [])
                _append(found[name], i, facts)
    ordered = [found[name] for name in setting.facts if name in found and found[name].values]
    together = max(sum(map(_noisy, run.facts.values())) for run in runs)  # on all its devices
    for series in ordered:
        _judge(series, together)
    return runs, ordered


def _drawn(facts: Facts) -> bool:
    return facts["metric"] in METRICS and not facts.get("sweep")


def _noisy(facts: Facts) -> bool:
    """Tell whether it is judged beyond its noise; the control measures the machine."""
    return _drawn(facts) and facts["metric"] == "latency" and facts["technique"] != "baseline"


def _measure(facts: Facts) -> Measure:
    if facts["metric"] == "latency":
        name = f"speed-up, {timed_name((facts['timing'], facts['batch_size']))}"
        return Measure(name, significant, _share, True, _speed_limit)
    if facts["metric"] == "score":
        return _score_measure(facts)
    return SIZE if facts["metric"] == "size" else ACCURACY


def _score_measure(facts: Facts) -> Measure:
    quality = quality_of([facts])
    error = quality.shown(facts.get("score_error", 0.0))
    reach = TOLERANCES["score unpaired"][0] * math.sqrt(2) * error

    def change(before: float, after: float) -> str:
        return f"{quality.written_lost(after - before)} {quality.lost_unit}".strip()

    def limit(level: float, _: int) -> float:
        return level - reach if quality.higher_is_better else level + reach

    return Measure(quality.title, quality.written, change, quality.higher_is_better, limit)


def _append(series: Series, i: int, facts: Facts) -> None:
    if facts.get("noisy"):
        return  # no evidence, here as in the gate
    value: Any
    if facts["metric"] == "size":
        value = facts["stored_bytes"] / MIB
    elif facts["metric"] == "accuracy":
        value = 100 * facts["correct"] / facts["total"]
    elif facts["metric"] == "score":
        value = value_of(facts)
    else:
        value = facts["speed_up"]
    series.at.append(i)
    series.values.append(float(value))
    series.facts.append(facts)


def _judge(series: Series, together: int) -> None:
    """Tell where its level changed; `together` noisy series are judged after each run."""
    if series.facts[-1]["metric"] != "latency":
        series.starts = exact_changes(series.values)
    elif _noisy(series.facts[-1]) and can_judge():
        ratios: list[Interval] = [
            (f["speed_up"], f["speed_up_low"], f["speed_up_high"]) for f in series.facts
        ]
        series.starts = noisy_changes(ratios, series=together)
        if len(ratios) >= FEWEST_RUNS:
            series.finds = smallest_step(ratios, series.starts, series=together)


def measures(series: Iterable[Series]) -> list[str]:
    """Return the names of what was measured: file, accuracy, then speed-ups by batch."""
    return list(dict.fromkeys(one.measure.name for one in sorted(series, key=_order)))


def _order(series: Series) -> tuple[int, str, int]:
    facts = series.facts[-1]
    return (METRICS.index(facts["metric"]), facts.get("timing", ""), facts.get("batch_size", 0))


def by_technique(series: Sequence[Series]) -> dict[str, dict[str, Series]]:
    """Return the series of each technique by the names of what they measured."""
    found: dict[str, dict[str, Series]] = {}
    for one in series:
        found.setdefault(one.technique, {})[one.measure.name] = one
    return found
