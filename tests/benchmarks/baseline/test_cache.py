"""The baseline's cache: what a training depends on is its key, and each bit of it is checked."""

import doctest
import errno
import os
import random
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from benchmarks import workloads
from benchmarks.baseline import cache as files
from benchmarks.baseline import (
    cache_path,
    keep_baseline,
    trainable_workload,
    training,
    weights_fingerprint,
)
from benchmarks.baseline.cache import holds_weights, read_checked, write_checked, write_weights
from benchmarks.baseline.checks import check_outputs
from benchmarks.baseline.data import Augment, Data, Normalize
from benchmarks.baseline.workload import name_of
from benchmarks.workloads import CIFAR10, DIGITS_224, Workload
from compression.architectures import Architecture
from compression.errors import CompressionError
from tests.support.nets import RECIPE, residual, split
from tests.support.places import ROOT
from tests.support.workloads import CPU, TINY, pictures, tiny_data, train_baseline


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


def network(activation: Callable[[Tensor], Tensor] = torch.relu, **norm: float) -> nn.Module:
    """Return what `shape` must not tell apart: the tensors have the same names and shapes."""
    p, frozen = norm.pop("p", 0.1), norm.pop("frozen", 0)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, **norm)
            self.drop, self.fc = nn.Dropout(p), nn.Linear(4, 4)
            self.conv.requires_grad_(not frozen)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(self.drop(activation(self.norm(self.conv(x))).mean((2, 3))))  # type: ignore[no-any-return]

    return Net()


def place(data: Data | None = None, **changed: Any) -> Path:
    def built() -> nn.Module:
        return network(**changed)

    return cache_path(replace(TINY, network=built), data or pictures(), CPU)


def flip(images: Tensor, generator: torch.Generator, probability: float = 0.5) -> Tensor:
    flips = torch.rand(len(images), generator=generator) < probability
    return torch.where(flips.view(-1, 1, 1, 1), images.flip(3), images)


DEPENDS: dict[str, Callable[[], Path]] = {
    "the network as it was": place,
    "its activation": lambda: place(activation=nn.functional.gelu),
    "its batch norm's eps": lambda: place(eps=1e-3),
    "its batch norm's momentum": lambda: place(momentum=0.2),
    "its dropout": lambda: place(p=0.2),
    "what is frozen": lambda: place(frozen=1),
    "its normalization": lambda: place(pictures(Normalize((0.5,) * 3, (0.2,) * 3))),
    "its preparation": lambda: place(pictures(lambda x: x.float() / 256)),
    "an augmentation": lambda: place(pictures(augment=flip)),
    "another augmentation": lambda: place(pictures(augment=partial(flip, probability=0.52))),
    "a shift": lambda: place(pictures(augment=Augment(shift=2))),
    "another shift": lambda: place(pictures(augment=Augment(shift=3))),
    "its last augmentation": lambda: place(pictures(augment=Augment(shift=3, degrees=1.0))),
}


def test_whatever_training_depends_on_is_another_place() -> None:
    assert len({build() for build in DEPENDS.values()}) == len(DEPENDS)


def test_an_edit_that_changes_nothing_is_the_same_place() -> None:
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    assert place() == place(), "and a second run finds it"
    assert place() == place(activation=lambda y: torch.relu(y)), "written another way"
    one = place(pictures(lambda x: x.float() / 255))
    assert one == place(pictures(lambda images: images.float() / 255))
    assert place(pictures(augment=flip)) == place(pictures(augment=partial(flip, probability=0.5)))
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), state), "no draw of the caller's"


FRESH = """
import sys
sys.path.insert(0, {root!r})
import torch
torch.set_num_threads({threads})
torch.rand({threads}), list(range(10**5 * {threads}))
from benchmarks.baseline.fingerprints import training_fingerprint
from benchmarks.baseline.workload import name_of
from compression.training import Recipe
from dataclasses import replace
from functools import partial
from benchmarks.baseline.data import Augment
from tests.support.nets import residual
from tests.support.workloads import TINY, pictures
workload = replace(TINY, network=partial(residual, seed=3))
recipe = replace(TINY.recipe, coarse_sizes=(6,))
data = pictures(augment=Augment(shift=2, degrees=5))
print(training_fingerprint(workload, data, recipe), workload.recipe_fingerprint())
"""


def test_another_process_on_another_day_finds_the_same_place() -> None:
    running = [
        subprocess.Popen(
            [sys.executable, "-c", FRESH.format(root=str(ROOT), threads=threads)],
            stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONHASHSEED": str(threads)},
        )
        for threads in (1, 2)
    ]  # fmt: skip
    first, second = (process.communicate(timeout=120)[0] for process in running)
    assert len(first.split()) == 2
    assert first == second


def flipped(path: Path, bit: int) -> bytes:
    whole = bytearray(path.read_bytes())
    whole[bit // 8] ^= 1 << bit % 8
    return bytes(whole)


def test_one_flipped_bit_anywhere_in_cached_weights_is_found(tmp_path: Path) -> None:
    path, damaged = tmp_path / "whole", tmp_path / "damaged"
    write_weights(path, residual().state_dict())
    assert holds_weights(path)
    size = 8 * path.stat().st_size
    header = 8 * (8 + int.from_bytes(path.read_bytes()[:8], "little"))
    drawn = random.Random(0)
    for bit in [*drawn.sample(range(header), 150), *drawn.sample(range(header, size), 300)]:
        damaged.write_bytes(flipped(path, bit))
        assert not holds_weights(damaged), bit
    for end in (0, 7, 100, size // 8 - 1):
        damaged.write_bytes(path.read_bytes()[:end])
        assert not holds_weights(damaged)
    damaged.write_bytes(path.read_bytes() + b"\0")
    assert not holds_weights(damaged)


def test_every_flipped_bit_of_a_resume_file_is_found(tmp_path: Path) -> None:
    path = tmp_path / "state"
    write_checked(path, b"epoch 3")
    assert read_checked(path) == b"epoch 3"
    for bit in range(8 * path.stat().st_size):
        damaged = tmp_path / "damaged"
        damaged.write_bytes(flipped(path, bit))
        assert read_checked(damaged) is None, bit


def damage_flip(path: Path) -> None:
    path.write_bytes(flipped(path, 8 * path.stat().st_size - 77))


def damage_unchecked(path: Path) -> None:
    save_file(residual(seed=9).state_dict(), path)  # as caches were before they were checked


@pytest.mark.parametrize("damage", [damage_flip, damage_unchecked])
def test_a_damaged_baseline_is_said_and_made_again(damage: Callable[[Path], None]) -> None:
    first, _ = train_baseline()
    path = cache_path(TINY, tiny_data(), CPU)
    damage(path)
    again, lines = train_baseline()
    assert "damaged, its checksum is not that of its bytes; the baseline is made again" in lines[0]
    assert weights_fingerprint(again) == weights_fingerprint(first)
    assert holds_weights(path)
    damage(path)
    keep_baseline(first, TINY, tiny_data(), CPU)
    assert holds_weights(path), "what is kept takes a damaged file's place"


def test_a_damaged_resume_file_is_said_and_not_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "RESUME_EVERY_S", -1.0)
    whole, resume = training.train(TINY, tiny_data(), CPU), tmp_path / "x.resume"
    training.train(TINY, tiny_data(), CPU, resume=resume)
    resume.write_bytes(flipped(resume, 4 * resume.stat().st_size))
    lines: list[str] = []
    found = training.train(TINY, tiny_data(), CPU, resume=resume, report=lines.append)
    assert "x.resume: damaged, its checksum" in lines[0]
    assert "training from the start" in lines[0]
    assert weights_fingerprint(found) == weights_fingerprint(whole)


def refusing(name: str, kind: int, when: Callable[[str], bool]) -> Callable[..., Any]:
    real = getattr(os, name)

    def refused(*arguments: Any, **options: Any) -> Any:
        if when(str(arguments[-1])):
            raise OSError(kind, os.strerror(kind))
        return real(*arguments, **options)

    return refused


def test_a_read_only_cache_that_holds_the_baseline_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    model, _ = train_baseline()

    def read_only(*_: Any, **__: Any) -> Any:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(files, "FileLock", read_only)
    monkeypatch.setattr(Path, "mkdir", read_only)
    found, lines = train_baseline()
    assert lines == []
    assert weights_fingerprint(found) == weights_fingerprint(model)
    other = replace(TINY, recipe=replace(RECIPE, seed=4))
    with pytest.raises(
        CompressionError, match=r"cannot be cached \(Read-only file system\); set XDG"
    ):
        train_baseline(other)


def test_a_disk_that_is_full_for_a_resume_file_ends_no_training(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(training, "RESUME_EVERY_S", -1.0)
    full = refusing("replace", errno.ENOSPC, lambda path: path.endswith(".resume"))
    monkeypatch.setattr(os, "replace", full)
    _, lines = train_baseline()
    said = [line for line in lines if "disk full" in line]
    assert len(said) == 1, "once, of two epochs"
    assert "training goes on, and a kill would cost all of it" in said[0]
    assert holds_weights(cache_path(TINY, tiny_data(), CPU))


def test_the_resume_file_makes_room_for_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "RESUME_EVERY_S", -1.0)
    path = cache_path(TINY, tiny_data(), CPU)
    resume = path.with_suffix(".resume")
    full = refusing(
        "replace", errno.ENOSPC, lambda name: name.endswith(".safetensors") and resume.exists()
    )
    monkeypatch.setattr(os, "replace", full)
    train_baseline()
    assert holds_weights(path)
    assert not resume.exists()
    path.unlink()
    monkeypatch.setattr(os, "replace", refusing("replace", errno.ENOSPC, lambda _: True))
    with pytest.raises(CompressionError, match="disk full"):
        train_baseline()


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
