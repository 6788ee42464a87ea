"""Tiny workloads that train in a second, and some that go wrong; subprocesses find them by name."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.baseline import Data, obtain_baseline
from benchmarks.baseline.data import Normalize
from benchmarks.workloads import DIGITS, Workload
from compression.storage import load_checkpoint
from compression.training import Split
from tests.support.nets import RECIPE, Residual, mlp, residual, split

CPU = torch.device("cpu")


def tiny_data(_: Path | None = None) -> Data:
    """Return images of noise."""
    return Data(split(64), split(16, 1), split(16, 2), title="noise")


TINY: Workload = replace(
    DIGITS, name="tiny", network=residual, data=tiny_data, recipe=RECIPE, batch_sizes=(1, 4)
)
HOT: Workload = replace(TINY, fine_tune=replace(RECIPE, learning_rate=1e30))
WITH_STUDENT: Workload = replace(
    TINY, student=mlp, student_recipe=TINY.recipe, fine_tune=TINY.recipe
)
"""A student and recipes as small as the rest."""


class Failing(Residual):
    """Trains for some batches, and then no more."""

    def __init__(self) -> None:
        """Count from 0."""
        super().__init__()
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        """Fail in the fourth batch."""
        self.calls += self.training
        if self.calls > 3:
            raise KeyError("a mistake of the user's")
        return super().forward(x)


FAILING: Workload = replace(TINY, name="failing", network=Failing)


def no_data(_: Path | None = None) -> Any:
    """Fail as a user's own loader may."""
    raise KeyError("no such column")


NO_DATA: Workload = replace(TINY, name="no-data", data=no_data)


def train_baseline(workload: Workload = TINY) -> tuple[nn.Module, list[str]]:
    """Return the baseline of a workload on noise, and the lines that it reported."""
    lines: list[str] = []
    model = obtain_baseline(workload, tiny_data(), CPU, load=load_checkpoint, report=lines.append)
    return model, lines


def pictures(prepare: Any = None, augment: Any = None) -> Data:
    """Return 64 random images of 8 bits in four classes."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (64, 3, 8, 8), dtype=torch.uint8, generator=generator)
    prepare = prepare or Normalize((0.5,) * 3, (0.25,) * 3)
    train = Split(images, torch.arange(64) % 4, prepare, augment)
    return Data(train, replace(train, augment=None), replace(train, augment=None), title="noise")
