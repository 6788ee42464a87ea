"""What a training's code does is found out in a few steps: a change anywhere within trains again."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from benchmarks.baseline import Baseline, fingerprints, weights_fingerprint
from benchmarks.kept import Training, trained
from benchmarks.techniques import BY_NAME
from compression import clustering, quantization, schedules
from compression.distillation import hinton
from compression.errors import CompressionError
from compression.pruning import fine_tune
from tests.support.nets import RECIPE, residual
from tests.support.workloads import CPU, WITH_STUDENT, tiny_data


@pytest.fixture
def b() -> Baseline:
    return Baseline(residual(), tiny_data(), WITH_STUDENT, CPU)


def twice(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *given, **options: function(*given, **options) * 2


def nearer(share: Callable[..., float]) -> Callable[..., float]:
    """Return a schedule that ends where the other does, by another way."""
    return lambda first, amount, progress: share(first, amount, progress**1.1)


CHANGES: dict[str, tuple[Any, str, Any]] = {
    # row: where its code changes, the attribute, and what it becomes
    "gradual-98": (schedules.gradual, "cubic_share", nearer),
    "iterative-98": (schedules.iterative, "_NEXT_ROUND", lambda seed: seed + 1),
    "learned-98": (schedules.learning, "FIRST_PULL", lambda pull: pull * 1.01),
    "learned-shared-16": (schedules.learning, "FIRST_PULL", lambda pull: pull * 1.01),
    "int8-qat": (
        quantization.qat,
        "choose_qparams",
        lambda f: lambda w, axis: f(w * 0.9, axis=axis),
    ),
    "pruned-shared-coded": (clustering.networks, "keep_sharing", lambda _: lambda _: lambda: None),
    "student": (hinton, "distillation_loss", twice),
    "distilled": (hinton, "distillation_loss", twice),
}


@pytest.mark.parametrize("row", CHANGES)
def test_other_code_anywhere_within_trains_again(
    b: Baseline,
    row: str,
    done: list[str],
    new_process: Callable[[], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    BY_NAME[row].how(b)
    before = list(done)
    module, attribute, change = CHANGES[row]
    monkeypatch.setattr(module, attribute, change(getattr(module, attribute)))
    new_process()
    BY_NAME[row].how(b)
    assert done == [*before, before[-1]]


def zeros_grow_back(*_: Any) -> None: ...


def test_another_end_of_soft_removal_trains_again(
    b: Baseline, done: list[str], new_process: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    BY_NAME["soft-channels-50"].how(b)
    monkeypatch.setattr("compression.removal.soft.zero_channels", zeros_grow_back)
    new_process()
    BY_NAME["soft-channels-50"].how(b)
    assert done.count("remove_channels_softly") == 2


def wide() -> nn.Module:
    torch.manual_seed(0)
    body = [nn.Conv2d(3, 64, 3), nn.BatchNorm2d(64), nn.ReLU(), nn.Conv2d(64, 64, 3)]
    return nn.Sequential(*body, nn.ReLU(), nn.Flatten(), nn.Linear(1024, 4)).eval()


@pytest.mark.parametrize("fails", [False, True])
def test_a_large_network_is_probed_narrower_where_that_goes(
    b: Baseline, done: list[str], monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    monkeypatch.setattr(fingerprints, "LARGE", 1)
    probed: list[int] = []

    def how(model: nn.Module, train: Any, recipe: Any, *, least: int) -> nn.Module:
        probed.append(model[0].out_channels)
        if model[0].out_channels < least:
            raise CompressionError("too narrow for me")
        return fine_tune(model, train, recipe)

    large = Training(how, wide(), b.data.train, RECIPE, {"least": 64 if fails else 0})
    first, second = (trained(b, large) for _ in range(2))
    assert weights_fingerprint(first) == weights_fingerprint(second)
    assert done == ["how"]
    assert probed[0] < 64
    assert probed[1:] == [64] * (1 + fails), "at last as large as it is"


def test_a_probe_that_fails_fails_no_training(
    b: Baseline, done: list[str], trainings: Path
) -> None:
    def needs_many(model: nn.Module, train: Any, recipe: Any) -> nn.Module:
        if len(train) < 64:
            raise KeyError("too few for me")
        return fine_tune(model, train, recipe)

    for _ in range(2):
        trained(b, Training(needs_many, b.model, b.data.train, RECIPE))
    assert len(done) == 2
    assert not trainings.exists()
