"""Sharded trainings whose state each process writes a part of; programs run `main`."""

import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.tensor import DTensor

from compression.training import EpochReport, Recipe, fit, shard, whole_weights, write_parts
from tests.support.ranks import RECIPE, Partly, pictures, still

THREE = replace(RECIPE, epochs=3)
CASES: dict[str, tuple[Callable[[], nn.Module], Recipe]] = {
    "adam": (partial(still, group=True), replace(THREE, optimizer="adam", learning_rate=0.002)),
    "a parameter without a gradient": (Partly, THREE),
}


def check_parts(state: dict[str, Any]) -> None:
    """Refuse a state of two processes in which one holds the whole of a weight or its moments."""
    found = 0
    for values in [state["model"], *state["optimizer"]["state"].values()]:
        for name, tensor in values.items():
            if tensor.ndim and len(tensor) > 1:
                assert isinstance(tensor, DTensor), name
                assert len(tensor.to_local()) * 2 == len(tensor), name
                found += 1
    assert found >= 10


def run_case(name: str, folder: Path, start: Path | None) -> None:
    """Train, from the state in `start` on, and write the state of each epoch, and the weights."""

    def keep(report: EpochReport) -> None:
        model.eval()(pictures(4).images)  # after which a part of a network could stay whole
        if dist.get_world_size() == 2:
            check_parts(report.state())
        write_parts(folder / name / str(report.epoch), report.state())

    make, recipe = CASES[name]
    model = make()
    shard(model, "cpu")
    fit(model, pictures(), recipe, on_epoch=keep, resume_from=start)
    weights = whole_weights(model)
    if dist.get_rank() == 0:
        torch.save(weights, folder / f"{name}.pt")


def main() -> None:
    """Run the cases in the group that the environment describes."""
    folder, *start = map(Path, sys.argv[1:])
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    for name in CASES:
        run_case(name, folder, start[0] / name / start[1] if start else None)
    dist.destroy_process_group()
