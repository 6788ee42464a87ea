"""The time of a student's epoch by each teacher: what is counted of what was measured."""

from dataclasses import replace

import pytest

from benchmarks import teaching
from benchmarks.baseline import Baseline
from benchmarks.teaching import TEACHERS, Teacher, epoch_ratio, time_epochs
from tests.support.nets import residual
from tests.support.workloads import CPU, WITH_STUDENT, tiny_data

LONG = replace(WITH_STUDENT.student_recipe, epochs=30, views=10)


@pytest.fixture
def b() -> Baseline:
    return Baseline(residual(), tiny_data(), replace(WITH_STUDENT, student_recipe=LONG), CPU)


def test_each_round_has_a_time_of_each_teacher(b: Baseline) -> None:
    found = time_epochs(b, images=32, rounds=2)
    assert list(found) == list(TEACHERS)
    assert all(len(times) == 2 and min(times) > 0 for times in found.values())


@pytest.mark.parametrize(
    ("remembered", "views", "seconds"),
    [(False, 10, 2.0), (True, 10, 4.0), (True, 0, 2.0), (True, 30, 2.0)],
)
def test_a_teacher_that_is_remembered_is_asked_in_the_recipe_s_views(
    b: Baseline, remembered: bool, views: int, seconds: float
) -> None:
    recipe = replace(LONG, views=views)
    asked = replace(b, workload=replace(b.workload, student_recipe=recipe))
    teacher = Teacher(lambda b: b.model, remembered=remembered)
    assert teaching._mean_epoch_s(asked, teacher, 8.0, 2.0) == pytest.approx(seconds)


def test_the_ratio_is_that_of_the_same_round() -> None:
    found = {"none": [1.0, 2.0, 3.0], "int8": [1.5, 2.6, 4.8]}
    assert epoch_ratio(found, "int8") == pytest.approx(1.5)
