"""The table of what a student learns by each loss and teacher."""

from typing import Any

import pytest
from scipy import stats

from benchmarks.report.lessons import T_95, lessons, teachers
from compression.errors import CompressionError

CONTROL = [0.84, 0.85, 0.86]


def facts_of(**accuracies: list[float]) -> list[dict[str, Any]]:
    return [
        {"lesson": name, "seed": seed, "accuracy": accuracy}
        for name, found in accuracies.items()
        for seed, accuracy in enumerate(found)
    ]


def test_a_gain_is_that_of_the_same_seed_with_student_s_interval() -> None:
    gains = [1.0, 2.0, 1.8]
    dist = [own + gain / 100 for own, gain in zip(CONTROL, gains, strict=True)]
    text = lessons([*facts_of(alone=CONTROL, dist=dist), {"technique": "no lesson"}])
    low, high = stats.ttest_1samp(gains, 0).confidence_interval(0.95)
    _, _, alone, taught = (
        [c.strip() for c in line.strip("|").split("|")] for line in text.splitlines()
    )
    assert alone == ["alone", "84.00, 85.00, 86.00", "85.00", "-"]
    assert taught == [
        "dist",
        "85.00, 87.00, 87.80",
        "**86.60**",
        f"+1.60 ({low:+.2f} to {high:+.2f})",
    ]


@pytest.mark.parametrize("seeds", range(2, 11))
def test_the_quantiles_are_student_s(seeds: int) -> None:
    assert T_95[seeds - 2] == pytest.approx(stats.t.ppf(0.975, seeds - 1), abs=5e-4)


def test_one_seed_has_no_interval_and_no_seed_of_both_no_gain() -> None:
    late = {"lesson": "hinton", "seed": 7, "accuracy": 0.9}
    text = lessons([*facts_of(alone=CONTROL, dist=[0.85]), late])
    assert "| +1.00" in text
    assert "no seed of both" in text


def test_a_run_without_the_control_is_refused() -> None:
    with pytest.raises(CompressionError, match="no row of the control, alone"):
        lessons(facts_of(dist=CONTROL))


def test_a_teacher_costs_so_many_epochs_without_one() -> None:
    fact = {"seconds": 42.0, "images_per_s": 50_000 / 42, "epoch_ratio": 1.2}
    text = teachers([{**fact, "technique": "teacher-int8-remembered"}])
    cells = [cell.strip() for cell in text.splitlines()[2].strip("|").split("|")]
    assert cells == ["int8, remembered", "42.0", "1,190", "1.20"]
