"""What the quality of a row is: accuracy in percent, or the score of a workload's own metric."""

from collections.abc import Iterable
from dataclasses import dataclass

from benchmarks.facts.record import Facts

QUALITIES = ("accuracy", "score")
"""The metrics of facts that say how good a network's answers are."""


@dataclass(frozen=True, slots=True)
class Quality:
    """A quality's name, its unit, of which % stands for shares of 1, and which way is better."""

    name: str
    unit: str
    higher_is_better: bool

    @property
    def is_share(self) -> bool:
        """Whether values are shares, which are shown in percent, and differences in points."""
        return self.unit == "%"

    @property
    def head(self) -> str:
        """The head of a narrow column."""
        return "acc %" if self == ACCURACY else f"{self.name} {self.unit}".strip()

    @property
    def lost_head(self) -> str:
        """The head of a narrow column of what the baseline has more, or of errors less."""
        unit = "pt" if self.is_share else self.unit
        return f"{'drop' if self.higher_is_better else 'rise'} {unit}".strip()

    @property
    def title(self) -> str:
        """The name and the unit, for an axis or a wide column."""
        return f"{self.name}, {self.unit}".removesuffix(", ")

    @property
    def lost_unit(self) -> str:
        """The unit of differences, in full."""
        return "points" if self.is_share else self.unit

    def shown(self, value: float) -> float:
        """Return a value as it is shown: a share in percent."""
        return 100 * value if self.is_share else value

    def written(self, value: float) -> str:
        """Return a value that is shown as text, without its unit."""
        return f"{value:.2f}" if self.is_share else f"{value:.4g}"

    def written_lost(self, lost: float) -> str:
        """Return a difference that is shown as text, without its unit; above 0 is worse."""
        return f"{lost:+.2f}" if self.is_share else f"{lost:+.3g}"

    def worth(self, value: float) -> float:
        """Return a number that is larger where a value is better."""
        return value if self.higher_is_better else -value


ACCURACY = Quality("accuracy", "%", True)


def quality_of(facts: Iterable[Facts]) -> Quality:
    """Return the quality of the first facts that have one: accuracy where none has another."""
    for fact in facts:
        if "score_name" in fact:
            return Quality(fact["score_name"], fact["score_unit"], fact["higher_is_better"])
        if "accuracy" in fact or "correct" in fact:
            break
    return ACCURACY


def value_of(fact: Facts) -> float | None:
    """Return the accuracy or score of a fact as it is shown; None where it has none."""
    value = fact.get("score", fact.get("accuracy"))
    return None if value is None else quality_of([fact]).shown(value)


def lost_of(fact: Facts) -> float | None:
    """Return what the baseline has more, or of an error less, as it is shown; None: not known."""
    value = fact.get("score_lost", fact.get("drop"))
    return None if value is None else quality_of([fact]).shown(value)


def baseline_of(fact: Facts) -> float | None:
    """Return the baseline's accuracy or score as it is shown; None where it is not known."""
    value = fact.get("baseline_score", fact.get("baseline_accuracy"))
    return None if value is None else quality_of([fact]).shown(value)
