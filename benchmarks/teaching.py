"""TEACHERS: what a student's epoch may take with each, and the epochs in turn."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from statistics import median

from torch import nn

from benchmarks.baseline import Baseline
from benchmarks.pipelines import ALONE
from benchmarks.repairs import quick_teacher, with_teacher_deployed
from compression.distillation import Hinton, distill
from compression.layers import copy_model

EPOCH_IMAGES = 50_000
"""Of the epoch that seconds are told for."""


@dataclass(frozen=True, slots=True)
class Teacher:
    """Who teaches: how it is made of the baseline, whether it is remembered, what it may cost.

    `epoch_ratio` is the most that an epoch of the recipe may take, in epochs without a teacher.
    """

    make: Callable[[Baseline], nn.Module]
    remembered: bool = False
    heard: bool = True
    epoch_ratio: float | None = None


TEACHERS = {
    "none": Teacher(lambda b: b.model, heard=False),
    "float": Teacher(lambda b: b.model),
    "float-remembered": Teacher(lambda b: b.model, remembered=True),
    "int8": Teacher(lambda b: quick_teacher(b, b.model)),
    "int8-remembered": Teacher(
        lambda b: quick_teacher(b, b.model), remembered=True, epoch_ratio=1.5
    ),
}
"""The last one is how the rows of students are trained."""


def time_epochs(b: Baseline, images: int, rounds: int) -> dict[str, list[float]]:
    """Return by teacher the seconds per image of an epoch, which are measured in turn.

    Each round trains a copy of the student for two epochs on some `images`. Of teachers that are
    asked each time the second epoch counts; of those that are remembered the mean over the recipe's
    epochs, of which so many as it has `views` are the first epoch again.
    """
    train = b.data.train.take(images)
    student = b.workload.student().to(b.device)
    teachers = {name: teacher.make(b) for name, teacher in TEACHERS.items()}
    found: dict[str, list[float]] = {name: [] for name in TEACHERS}
    for _ in range(rounds):
        for name, teacher in TEACHERS.items():
            seconds: list[float] = []
            with_teacher_deployed(
                distill,
                copy_model(student),
                train,
                replace(b.workload.student_recipe, epochs=2, views=int(teacher.remembered)),
                teacher=teachers[name],
                distillation=Hinton() if teacher.heard else ALONE,
                on_epoch=lambda report, seconds=seconds: seconds.append(report.seconds),
            )
            found[name].append(_mean_epoch_s(b, teacher, *seconds) / len(train))
    return found


def _mean_epoch_s(b: Baseline, teacher: Teacher, asked_s: float, later_s: float) -> float:
    recipe = b.workload.student_recipe
    if not teacher.remembered or not recipe.repeats:
        return later_s
    share = recipe.views / recipe.epochs
    return share * asked_s + (1 - share) * later_s


def epoch_ratio(found: dict[str, list[float]], name: str) -> float:
    """Return the median over rounds of an epoch's time, in epochs without a teacher."""
    pairs = zip(found[name], found["none"], strict=True)
    return median(own / alone for own, alone in pairs)
