"""What a student learns by each loss and teacher, over several seeds, and what teachers cost."""

from collections.abc import Sequence
from statistics import mean, stdev

from benchmarks.facts.record import Facts
from benchmarks.report.table import markdown
from compression.errors import CompressionError

CONTROL = "alone"
T_95 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)
"""Student's t for two-sided 95% intervals of 2 to 10 seeds."""


def lessons(facts: Sequence[Facts]) -> str:
    """Return a row per lesson: its seeds' accuracies, their mean, and what it gains on the control.

    The gain is that of the same seed, the mean over seeds with its 95% interval.
    """
    found: dict[str, dict[int, float]] = {}
    for fact in facts:
        if "lesson" in fact:
            found.setdefault(fact["lesson"], {})[fact["seed"]] = 100 * fact["accuracy"]
    if CONTROL not in found:
        raise CompressionError(f"no row of the control, {CONTROL}")
    best = max(found, key=lambda name: mean(found[name].values()))
    lines = [_line(name, found[name], found[CONTROL], bold=name == best) for name in found]
    head = ["learns", "acc % by seed", "mean", "over the control, pt (95%)"]
    return markdown([head, *lines], left=(0, 1))


def _line(name: str, own: dict[int, float], control: dict[int, float], *, bold: bool) -> list[str]:
    middle = f"{mean(own.values()):.2f}"
    gains = [own[seed] - control[seed] for seed in sorted(own.keys() & control.keys())]
    return [
        name,
        ", ".join(f"{own[seed]:.2f}" for seed in sorted(own)),
        f"**{middle}**" if bold else middle,
        "-" if name == CONTROL else interval_of(gains),
    ]


def interval_of(gains: Sequence[float]) -> str:
    """Return the mean of gains and its 95% interval, which one gain does not have.

    >>> interval_of([1.0, 1.2, 1.1])
    '+1.10 (+0.85 to +1.35)'
    >>> interval_of([1.0])
    '+1.00'
    """
    if not gains:
        return "no seed of both"
    middle = mean(gains)
    if len(gains) == 1:
        return f"{middle:+.2f}"
    half = T_95[min(len(gains), len(T_95) + 1) - 2] * stdev(gains) / len(gains) ** 0.5
    return f"{middle:+.2f} ({middle - half:+.2f} to {middle + half:+.2f})"


def teachers(facts: Sequence[Facts]) -> str:
    """Return what a student's epoch takes with each teacher, in seconds and beside one without."""
    head = ["teacher", "s per epoch", "images/s", "epochs without a teacher"]
    lines = [
        [
            fact["technique"].removeprefix("teacher-").replace("-", ", "),
            f"{fact['seconds']:.1f}",
            f"{fact['images_per_s']:,.0f}",
            f"{fact['epoch_ratio']:.2f}",
        ]
        for fact in facts
    ]
    return markdown([head, *lines])
