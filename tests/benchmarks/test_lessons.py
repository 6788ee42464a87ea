"""A student's lessons: each is its own, and a killed one goes on."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from benchmarks import pipelines
from benchmarks.baseline import Baseline, resume, weights_fingerprint
from benchmarks.pipelines import ALONE, train_student
from benchmarks.sweep import LESSONS, lesson_point
from compression.distillation import distill
from compression.errors import CompressionError
from compression.training import Recipe, Split
from tests.support.nets import RECIPE, residual
from tests.support.workloads import CPU, WITH_STUDENT, tiny_data

TWICE = replace(RECIPE, epochs=4, views=2)


@pytest.fixture
def b() -> Baseline:
    workload = replace(
        WITH_STUDENT,
        student=lambda: residual(5),
        student_layers={"conv1": "conv1"},
        student_recipe=TWICE,
        removal={0.5: RECIPE},
    )
    return Baseline(residual(), tiny_data(), workload, CPU)


def test_each_lesson_and_seed_trains_another_network(b: Baseline) -> None:
    found = {name: weights_fingerprint(lesson_point(name, 0).how(b)) for name in LESSONS}
    assert len(set(found.values())) == len(LESSONS), found
    again = weights_fingerprint(lesson_point("dist", 1).how(b))
    assert again not in found.values()
    assert weights_fingerprint(train_student(b, ALONE)) == found["alone"]


def test_a_workload_without_layers_is_told_what_to_name(b: Baseline) -> None:
    without = replace(b, workload=replace(b.workload, student_layers={}))
    with pytest.raises(CompressionError, match=r"workload tiny names no layers .* student_layers="):
        lesson_point("attention", 0).how(without)


def test_a_killed_student_goes_on_and_knows_its_epochs(
    b: Baseline, trainings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[float] = []
    whole = weights_fingerprint(train_student(replace(b, on_epoch=heard.append), ALONE))
    (network,) = trainings.glob("*.safetensors")
    network.unlink()
    monkeypatch.setattr(resume, "RESUME_EVERY_S", -1.0)

    def killed(student: nn.Module, train: Split, recipe: Recipe, **options: Any) -> nn.Module:
        keep = options["on_epoch"]

        def after(epoch: Any) -> None:
            keep(epoch)
            if len(train) > 4 and epoch.epoch == 1 and options.get("resume_from") is None:
                raise KeyboardInterrupt

        return distill(student, train=train, recipe=recipe, **{**options, "on_epoch": after})

    killed.__qualname__ = distill.__qualname__
    monkeypatch.setattr(pipelines, "distill", killed)
    with pytest.raises(KeyboardInterrupt):
        train_student(b, ALONE)
    again: list[float] = []
    assert weights_fingerprint(train_student(replace(b, on_epoch=again.append), ALONE)) == whole
    assert again == heard
    assert len(heard) == TWICE.epochs
