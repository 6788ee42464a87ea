"""A training that repairs is done once: again for another recipe, network, teacher or code."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from benchmarks import pipelines, repairs
from benchmarks.baseline import Baseline, resume, weights_fingerprint
from benchmarks.pipelines import remove_and_tune, train_small, train_smaller
from benchmarks.repairs import quick_teacher, repaired, with_teacher_deployed
from compression.distillation import distill
from compression.pruning import fine_tune, prune_l1_global, sparsity
from compression.quantization import StaticQuantizedModel
from compression.training import Recipe, Split
from tests.support.nets import RECIPE, residual, split
from tests.support.workloads import CPU, WITH_STUDENT, tiny_data

LONGER = replace(RECIPE, epochs=3)


@pytest.fixture
def b() -> Baseline:
    workload = replace(WITH_STUDENT, removal={0.5: RECIPE})
    return Baseline(residual(), tiny_data(), workload, CPU)


def repair(b: Baseline, **options: Any) -> nn.Module:
    model = options.pop("model", None) or prune_l1_global(b.model, amount=0.5)
    given = {"images": b.data.train, "recipe": LONGER, **options}
    return repaired(b, model, **given)


def test_a_training_is_done_once(b: Baseline, done: list[str]) -> None:
    first = repair(b)
    wanted = fine_tune(prune_l1_global(b.model, amount=0.5), b.data.train, LONGER)
    assert weights_fingerprint(first) == weights_fingerprint(wanted)
    assert done == ["fine_tune"]
    second = repair(b)
    assert done == ["fine_tune"]
    assert weights_fingerprint(second) == weights_fingerprint(first)
    assert not second.training
    assert sparsity(second) == pytest.approx(0.5, abs=0.01)
    with torch.no_grad():  # a copy: what one row does to it, the next does not see
        next(second.parameters()).zero_()
    assert weights_fingerprint(repair(b)) == weights_fingerprint(first)


@pytest.mark.parametrize(
    "other",
    [{"recipe": RECIPE}, {"images": split(64, 3)}, {"taught": True}],
    ids=["recipe", "images", "teacher"],
)
def test_another_training_is_another_one(
    b: Baseline, done: list[str], other: dict[str, Any]
) -> None:
    first = weights_fingerprint(repair(b))
    assert weights_fingerprint(repair(b, **other)) != first
    repair(b, model=prune_l1_global(b.model, amount=0.25))
    assert len(done) == 3


def test_another_teacher_is_another_training(b: Baseline, done: list[str]) -> None:
    model = prune_l1_global(b.model, amount=0.5)
    for calibration_images in (256, 16):  # which choose the ranges of the teacher's codes
        taught = replace(b, workload=replace(b.workload, calibration_images=calibration_images))
        repair(taught, model=model, taught=True)
        repair(taught, model=model, taught=True)
    repair(replace(b, model=residual(1)), model=model, taught=True)
    assert len(done) == 3


def test_other_code_of_the_training_trains_again(
    b: Baseline, done: list[str], new_process: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    repair(b)

    def slower(model: nn.Module, train: Split, recipe: Recipe, **options: Any) -> nn.Module:
        rate = recipe.learning_rate / 2
        return fine_tune(model, train, replace(recipe, learning_rate=rate), **options)

    slower.__qualname__ = fine_tune.__qualname__
    monkeypatch.setattr(repairs, "fine_tune", slower)
    new_process()
    repair(b)
    assert len(done) == 2


def test_a_killed_training_goes_on(
    b: Baseline, trainings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = weights_fingerprint(repair(b, taught=True))
    (network,) = trainings.glob("*.safetensors")
    network.unlink()
    monkeypatch.setattr(resume, "RESUME_EVERY_S", -1.0)
    starts: list[Any] = []

    def killed(model: nn.Module, train: Split, recipe: Recipe, **options: Any) -> nn.Module:
        starts.append(options.get("resume_from"))
        keep = options["on_epoch"]

        def after(epoch: Any) -> None:
            keep(epoch)
            raise KeyboardInterrupt

        if len(train) > 4 and starts[-1] is None:
            options["on_epoch"] = after
        return fine_tune(model, train, recipe, **options)

    monkeypatch.setattr(repairs, "fine_tune", killed)
    with pytest.raises(KeyboardInterrupt):
        repair(b, taught=True)
    assert weights_fingerprint(repair(b, taught=True)) == whole
    assert starts[-1]["epoch"] == 0
    left = {path.suffix for path in trainings.iterdir() if path.suffix != ".lock"}
    assert left == {".safetensors", ".json"}


def test_rows_of_removed_channels_share_their_training(b: Baseline, done: list[str]) -> None:
    first = remove_and_tune(b, macs=0.5)
    assert weights_fingerprint(remove_and_tune(b, macs=0.5)) == weights_fingerprint(first)
    assert len(done) == 1
    alone = fine_tune(first, b.data.train, RECIPE)
    assert weights_fingerprint(train_smaller(b, first)) != weights_fingerprint(alone)  # taught


@pytest.mark.parametrize(("macs", "epochs"), [(0.7, 1), (0.45, 1), (0.25, 2), (0.15, 3)])
def test_the_recipe_is_that_of_the_nearest_share(
    b: Baseline, monkeypatch: pytest.MonkeyPatch, macs: float, epochs: int
) -> None:
    recipes = {share: replace(RECIPE, epochs=n) for share, n in ((0.5, 1), (0.25, 2), (0.125, 3))}
    taken = replace(b, workload=replace(b.workload, removal=recipes))
    seen: list[Recipe] = []
    monkeypatch.setattr(pipelines, "repaired", lambda *given, **_: seen.append(given[-1]))
    monkeypatch.setattr(pipelines, "count_macs", lambda m, _: 1.0 if m is taken.model else macs)
    train_smaller(taken, residual())
    assert [recipe.epochs for recipe in seen] == [epochs]


def test_a_gpu_has_recipes_of_its_own() -> None:
    workload = replace(WITH_STUDENT, removal={0.5: RECIPE})
    on_gpu = replace(workload, cuda_removal={0.5: LONGER})
    assert on_gpu.removal_on("cuda:1") == {0.5: LONGER}
    assert on_gpu.removal_on(CPU) == workload.removal_on("cuda") == {0.5: RECIPE}
    assert not WITH_STUDENT.removal_on("cuda")


def test_the_small_networks_whole_training_is_done_once(b: Baseline, done: list[str]) -> None:
    first = train_small(b, macs=0.5)
    assert len(done) == 2, "from nothing, and as the removed channels' network is trained"
    assert weights_fingerprint(train_small(b, macs=0.5)) == weights_fingerprint(first)
    assert len(done) == 2


def test_an_int8_teacher_answers_images_of_every_size_of_a_recipe(b: Baseline) -> None:
    coarse = replace(LONGER, coarse_sizes=(6,))
    teacher = quick_teacher(b, b.model)
    assert isinstance(teacher, StaticQuantizedModel)
    asked: list[torch.Size] = []

    def verb(model: nn.Module, *, train: Split, recipe: Recipe, teacher: nn.Module) -> nn.Module:
        teacher.register_forward_pre_hook(lambda _, inputs: asked.append(inputs[0].shape[1:]))
        return distill(model, teacher, train, recipe)

    given = (residual(), b.data.train, coarse)
    learned = with_teacher_deployed(verb, *given, teacher=teacher)
    assert list(dict.fromkeys(asked)) == [(3, 6, 6), (3, 8, 8)]
    wanted = distill(given[0], teacher, *given[1:])
    assert weights_fingerprint(learned) == weights_fingerprint(wanted)
