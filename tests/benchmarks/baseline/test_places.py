"""What a training depends on is its key in the cache; what it does not is none of it."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.baseline import Data, cache_path
from benchmarks.baseline.data import Augment, Normalize
from tests.support.processes import in_a_fresh_process
from tests.support.runs import printed_by
from tests.support.workloads import CPU, TINY, pictures


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
    def build() -> nn.Module:
        return network(**changed)

    return cache_path(replace(TINY, network=build), data or pictures(), CPU)


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


FOUND = """
import sys
from dataclasses import replace
from functools import partial
import torch
threads = int(sys.argv[1])
torch.set_num_threads(threads)
torch.rand(threads), list(range(10**5 * threads))
from benchmarks.baseline.data import Augment
from benchmarks.baseline.fingerprints import training_fingerprint
from tests.support.nets import residual
from tests.support.workloads import TINY, pictures
workload = replace(TINY, network=partial(residual, seed=3))
recipe = replace(TINY.recipe, coarse_sizes=(6,))
data = pictures(augment=Augment(shift=2, degrees=5))
print(training_fingerprint(workload, data, recipe), workload.recipe_fingerprint())
"""


def test_another_process_on_another_day_finds_the_same_place() -> None:
    first = printed_by(FOUND, 1)
    second = in_a_fresh_process(FOUND, 2, PYTHONHASHSEED="2")  # sets of another order
    assert len(first.split()) == 2
    assert first == second
