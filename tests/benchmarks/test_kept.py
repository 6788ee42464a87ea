"""Every training is kept: found by the next process, done again where anything of it has changed."""

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from benchmarks import kept, pipelines
from benchmarks.artifact import compress
from benchmarks.baseline import Baseline, weights_fingerprint
from benchmarks.kept import Training, trained
from benchmarks.technique import Technique
from benchmarks.techniques import BY_NAME
from compression.distillation import Hinton, distill
from compression.errors import CheckpointError
from compression.layers import left_out, record_left_out
from compression.pruning import fine_tune
from tests.support.nets import RECIPE, mlp, residual
from tests.support.workloads import CPU, WITH_STUDENT, tiny_data

ROWS = {
    "l1-unstructured-60-tuned": ["fine_tune"],
    "tuned-l1-global-98": ["prune_gradually"],
    "gradual-98": ["prune_gradually"],
    "iterative-98": ["prune_iteratively"],
    "learned-98": ["learn_pruned"],
    "learned-shared-16": ["learn_shared"],
    "soft-channels-50": ["remove_channels_softly", "fine_tune"],
    "int8-qat": ["quantize_aware"],
    "pruned-shared-coded": ["fine_tune", "fine_tune_centroids"],
    "student": ["distill"],
    "distilled": ["distill"],
}
"""What each trains."""


@pytest.fixture
def b() -> Baseline:
    return Baseline(residual(), tiny_data(), WITH_STUDENT, CPU)


def test_a_training_notes_how_far_it_is_and_a_kept_one_nothing(b: Baseline) -> None:
    for told in (["epoch 1/2, about 0.0 min left", "epoch 2/2, about 0.0 min left"], []):
        notes: list[str] = []
        BY_NAME["l1-unstructured-60-tuned"].how(replace(b, note=notes.append))
        assert notes == told


@pytest.mark.parametrize("row", ROWS)
def test_the_next_process_finds_each_training(
    b: Baseline, row: str, done: list[str], new_process: Callable[[], None], tmp_path: Path
) -> None:
    first, second = (compress_anew(BY_NAME[row], b, tmp_path, new_process) for _ in range(2))
    assert done == ROWS[row]
    assert second.fingerprint == first.fingerprint
    assert second.facts == first.facts
    assert second.account == first.account
    images = b.data.test.inputs(slice(None))
    with torch.no_grad():
        assert torch.equal(first.load(CPU)(images), second.load(CPU)(images))


def compress_anew(row: Technique, b: Baseline, folder: Path, new_process: Any) -> Any:
    new_process()
    return compress(row, b, folder / "model.safetensors")


def test_every_option_and_its_default_count(b: Baseline, done: list[str]) -> None:
    def how(model: nn.Module, train: Any, recipe: Any, *, every: int = 10) -> nn.Module:
        return fine_tune(model, train, recipe)

    for options in ({}, {"every": 10}, {"every": 9}):
        trained(b, training(b, how, options))
    assert len(done) == 2, "a default is an option like another"
    how.__kwdefaults__["every"] = 8
    trained(b, training(b, how))
    assert len(done) == 3


def training(
    b: Baseline, how: Callable[..., nn.Module], options: Mapping[str, Any] = {}
) -> Training:
    return Training(how, b.model, b.data.train, RECIPE, options)


def test_what_no_file_can_hold_and_a_full_disk_cost_the_keeping_only(
    b: Baseline, done: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise CheckpointError("disk full")

    monkeypatch.setattr(kept, "save", full)
    first, second = (trained(b, training(b, fine_tune)) for _ in range(2))
    assert weights_fingerprint(first) == weights_fingerprint(second)
    assert len(done) == 2


def test_without_a_folder_that_can_be_written_it_trains(
    b: Baseline, done: list[str], trainings: Path
) -> None:
    trainings.parent.mkdir()
    trainings.write_text("a file in the folder's place")
    for _ in range(2):
        trained(b, training(b, fine_tune))
    assert len(done) == 2


@pytest.mark.parametrize("suffix", [".safetensors", ".json"])
def test_a_damaged_file_is_made_again(
    b: Baseline, done: list[str], trainings: Path, suffix: str
) -> None:
    first = weights_fingerprint(trained(b, training(b, fine_tune)))
    (path,) = trainings.glob(f"*{suffix}")
    whole = bytearray(path.read_bytes())
    whole[len(whole) // 2] ^= 1
    path.write_bytes(whole)
    for _ in range(2):
        assert weights_fingerprint(trained(b, training(b, fine_tune))) == first
    assert len(done) == 2


def test_what_was_left_out_is_told_of_a_kept_network_too(b: Baseline) -> None:
    def how(model: nn.Module, train: Any, recipe: Any) -> nn.Module:
        tuned = fine_tune(model, train, recipe)
        record_left_out(tuned, {"fc.weight": "it is small"})
        return tuned

    told = [left_out(trained(b, training(b, how))) for _ in range(2)]
    assert told == [{"fc.weight": "it is small"}] * 2


def test_the_cost_is_that_of_the_training_whenever_it_was_done(
    b: Baseline, tmp_path: Path, new_process: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row trains for 1000 s and 64 MiB between 10 s of its own; a probe takes twice as much."""
    now_s = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now_s[0])

    def take(seconds: float, mib: int) -> None:
        now_s[0] += seconds
        torch.ones(mib * 2**18)

    def long(model: nn.Module, train: Any, recipe: Any) -> nn.Module:
        take(*((1000, 64) if len(train) > 4 else (2000, 128)))
        return fine_tune(model, train, recipe)

    def how(b: Baseline) -> nn.Module:
        take(10, 1)
        model = trained(b, training(b, long))
        take(10, 1)
        return model

    costs = [compress_anew(Technique("long", how), b, tmp_path, new_process) for _ in range(2)]
    assert [cost.seconds for cost in costs] == [1020, 1020]
    assert now_s == [2 * 2020 + 1000]
    for cost in costs:
        if cost.peak_memory_bytes is not None:
            assert 60 <= cost.peak_memory_bytes / 2**20 < 120


def test_an_epochs_accuracy_is_told_again(b: Baseline) -> None:
    heard: list[list[float]] = []
    for _ in range(2):
        heard.append([])
        pipelines.train_student(replace(b, on_epoch=heard[-1].append), pipelines.ALONE)
    assert heard[0] == heard[1]
    assert len(heard[0]) == RECIPE.epochs


def test_other_validation_images_have_other_accuracies(b: Baseline, done: list[str]) -> None:
    for validation in (b.data.validation, b.data.test):
        data = replace(b.data, validation=validation)
        pipelines.train_student(replace(b, data=data), pipelines.ALONE)
    assert done == ["distill", "distill"]


def test_another_student_teacher_or_loss_trains_again(b: Baseline, done: list[str]) -> None:
    cases = ((b.model, 0, 4.0), (b.model, 1, 4.0), (residual(1), 1, 4.0), (residual(1), 1, 3.0))
    for teacher, student, temperature in cases:
        options = {"teacher": teacher, "distillation": Hinton(temperature=temperature)}
        trained(b, Training(distill, mlp(student), b.data.train, RECIPE, options))
    assert len(done) == len(cases)


def test_a_training_that_is_kept_makes_room(
    b: Baseline, done: list[str], trainings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for epochs in (1, 2):
        trained(b, replace(training(b, fine_tune), recipe=replace(RECIPE, epochs=epochs)))
    for path in trainings.glob("*.safetensors"):
        os.utime(path, (0, 0))
    monkeypatch.setattr(kept, "KEPT_BYTES", 2.5 * path.stat().st_size)
    trained(b, replace(training(b, fine_tune), recipe=replace(RECIPE, epochs=2)))  # is used now
    trained(b, replace(training(b, fine_tune), recipe=replace(RECIPE, epochs=3)))
    assert len(done) == 3
    trained(b, replace(training(b, fine_tune), recipe=replace(RECIPE, epochs=2)))
    assert len(done) == 3, "what was used last stays"
    trained(b, replace(training(b, fine_tune), recipe=replace(RECIPE, epochs=1)))
    assert len(done) == 4
