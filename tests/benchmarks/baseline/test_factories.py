"""Any factory of a network has a name, and is checked before anything is trained."""

import doctest
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from benchmarks import workloads
from benchmarks.baseline import cache_path, trainable_workload, training
from benchmarks.baseline.checks import check_outputs
from benchmarks.baseline.workload import name_of
from benchmarks.workloads import CIFAR10, DIGITS_224, Workload
from compression.architectures import Architecture
from compression.errors import CompressionError
from tests.support.nets import RECIPE, residual, split
from tests.support.workloads import CPU, TINY, tiny_data, train_baseline


class Flat(nn.Module):
    """Takes images of one size."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(192, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x.reshape(len(x), -1))  # type: ignore[no-any-return]


def test_coarse_sizes_follow_the_network() -> None:
    coarse = replace(TINY, recipe=replace(RECIPE, coarse_sizes=(6,)))
    lines: list[str] = []
    assert trainable_workload(coarse, tiny_data(), CPU, lines.append) is coarse
    assert lines == []
    flat = replace(coarse, network=Flat)
    usable = trainable_workload(flat, tiny_data(), CPU, lines.append)
    assert usable.recipe_on(CPU) == RECIPE
    assert "trained on whole images, without the recipe's coarse sizes 6" in lines[0]
    train_baseline(usable)
    assert trainable_workload(flat, tiny_data(), CPU, lines.append) == usable
    assert cache_path(usable, tiny_data(), CPU) != cache_path(flat, tiny_data(), CPU)
    with pytest.raises(CompressionError, match="leave the recipe's coarse_sizes out"):
        training.train(flat, tiny_data(), CPU)


@pytest.mark.parametrize("base", [CIFAR10, DIGITS_224], ids=["cifar10", "digits-224"])
def test_coarse_sizes_are_those_of_the_network_that_they_were_chosen_for(base: Workload) -> None:
    assert base.recipe_on(CPU).coarse_sizes
    other = replace(base, network=residual)
    assert other.recipe_on(CPU) == replace(base.recipe, coarse_sizes=())
    assert replace(other, coarse_for=residual).recipe_on(CPU) is base.recipe
    assert replace(other, coarse_for=None).recipe_on(CPU) is base.recipe


@dataclass(frozen=True)
class Built:
    classes: int

    def __call__(self) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(192, self.classes))


class Plainly:
    def __call__(self) -> nn.Module:
        return residual()


NAMED: dict[str, tuple[Any, str]] = {
    "a function": (residual, "residual"),
    "an architecture": (
        Architecture("five-layer-cnn", 4), "Architecture(name='five-layer-cnn', num_classes=4)"
    ),
    "a partial": (partial(residual, seed=3), "partial(residual, seed=3)"),
    "a partial of a partial": (partial(partial(residual, 3)), "partial(residual, 3)"),
    "a lambda": (lambda: residual(), "<lambda>"),
    "a dataclass": (Built(4), "Built(classes=4)"),
    "an object": (Plainly(), "Plainly"),
}  # fmt: skip


@pytest.mark.parametrize("name", NAMED)
def test_any_callable_is_a_factory_with_a_name(name: str) -> None:
    factory, wanted = NAMED[name]
    assert name_of(factory) == wanted
    if name == "an architecture":  # for images of 32 pixels
        assert len(replace(TINY, network=factory).recipe_fingerprint()) == 16
        return
    workload = replace(TINY, network=factory, student=factory, pretrained=factory)
    check_outputs(workload, tiny_data())
    usable = trainable_workload(workload, tiny_data(), CPU)
    assert usable.recipe_fingerprint() == workload.recipe_fingerprint()
    train_baseline(usable)
    assert trainable_workload(workload, tiny_data(), CPU) is workload, "found in the cache"


def test_the_example_of_a_name_is_right() -> None:
    assert doctest.testmod(workloads).failed == 0


@pytest.mark.parametrize(
    ("build", "said"), [(lambda: nn.Linear(-1, 2), "negative"), (nn.Module, "missing the required")]
)
def test_a_network_that_fails_is_refused_before_training(
    build: Callable[[], nn.Module], said: str
) -> None:
    with pytest.raises(CompressionError, match=f"its network cannot take an input.*{said}"):
        check_outputs(replace(TINY, network=build), tiny_data())


def test_logits_that_are_none_are_refused_before_training() -> None:
    class Pair(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return x, x

    for build, found in ((Pair, "tuple"), (lambda: Sums(), r"\(1,\)")):
        with pytest.raises(CompressionError, match=f"must give one tensor of logits.*{found}"):
            check_outputs(replace(TINY, network=build), tiny_data())  # type: ignore[arg-type]


class Sums(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.sum((1, 2, 3))


def test_an_odd_batch_and_a_view_make_a_baseline() -> None:
    class Viewed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.fc, self.norm = nn.Conv2d(3, 4, 3), nn.Linear(144, 4), nn.BatchNorm1d(4)

        def forward(self, x: Tensor) -> Tensor:
            return self.norm(self.fc(self.conv(x).view(len(x), -1)))  # type: ignore[no-any-return]

    data = replace(tiny_data(), train=split(65))
    lines: list[str] = []
    model = training.train(replace(TINY, network=Viewed), data, CPU, report=lines.append)
    assert model.get_parameter("conv.weight").is_contiguous()
    assert "about 0.0 min left" in lines[-1], "an epoch has four steps, one of 17 images"
    tuned = training.train(TINY, tiny_data(), CPU)
    weight = tuned.get_parameter("conv1.weight")
    assert weight.is_contiguous(memory_format=torch.channels_last)
