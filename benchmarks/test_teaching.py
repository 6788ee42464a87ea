"""A student's epoch by each teacher: `pytest benchmarks/test_teaching.py -m training`."""

from collections.abc import Callable
from statistics import median
from typing import Any

import pytest
import torch

from benchmarks.baseline import Baseline
from benchmarks.facts.record import record
from benchmarks.options import devices, place_of
from benchmarks.teaching import EPOCH_IMAGES, TEACHERS, epoch_ratio, time_epochs
from benchmarks.timing.clock import CLOCK, replay

pytestmark = [pytest.mark.training, pytest.mark.benchmark(timer=CLOCK)]
IMAGES, ROUNDS = 2_560, 5


@pytest.fixture(scope="module")
def student_lessons(
    request: pytest.FixtureRequest, baseline_on: Callable[[torch.device], Baseline]
) -> tuple[Baseline, dict[str, list[float]]]:
    """Return the baseline, and by teacher the seconds per image of a student's epoch."""
    b = baseline_on(place_of(devices(request.config)[0]))
    return b, time_epochs(b, IMAGES, ROUNDS)


@pytest.mark.parametrize("name", TEACHERS)
def test_epoch_with_teacher(
    benchmark: Any, request: pytest.FixtureRequest, student_lessons: Any, name: str
) -> None:
    b, found = student_lessons
    recipe = b.workload.student_recipe
    promised = b.workload.name == "cifar10"  # another workload is measured without
    limit = TEACHERS[name].epoch_ratio if promised else None
    ratio, seconds = epoch_ratio(found, name), EPOCH_IMAGES * median(found[name])
    replay(benchmark, [EPOCH_IMAGES * time for time in found[name]])
    record(
        benchmark, request, metric="teaching", technique=f"teacher-{name}", device=b.device.type,
        workload=b.workload.name, data=b.data.title, simulated=False, seconds=seconds,
        images_per_s=EPOCH_IMAGES / seconds, epoch_ratio=ratio, epochs=recipe.epochs,
        views=recipe.views, target=limit,
        target_met=None if limit is None else ratio <= limit,
    )  # fmt: skip
    assert limit is None or ratio <= limit, f"{ratio:.2f} epochs without a teacher, at most {limit}"
