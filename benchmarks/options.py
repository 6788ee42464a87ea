"""What the command line chose, for both conftests: no module can import from those."""

import os
from collections.abc import Sequence

import pytest
import torch

from benchmarks.machine.device import device_name
from benchmarks.workloads import Workload

WORKLOAD = pytest.StashKey[Workload]()


def devices(config: pytest.Config) -> list[str]:
    """Return the devices asked for, in order."""
    return list(dict.fromkeys(config.getoption("--device") or ["cpu"]))


def place_of(kind: str) -> torch.device:
    """Return the device of a kind; among several GPUs the number of xdist's worker chooses."""
    if kind == "cpu":
        return torch.device("cpu")
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    return torch.device("cuda", worker % torch.cuda.device_count())


def training_kind(kinds: Sequence[str]) -> str:
    """Return where the baseline is trained: on a GPU where one is asked for.

    Its weights serve every device: all rows of a table are about one network.
    """
    return "cuda" if "cuda" in kinds else "cpu"


def device_names(kinds: Sequence[str]) -> str:
    """Return the models of the devices asked for, in the order of the options."""
    return " + ".join(device_name(place_of(kind)) for kind in kinds)
