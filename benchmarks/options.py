"""What the command line chose, for both conftests: no module can import from those."""

from collections.abc import Sequence

import pytest
import torch

from benchmarks.gate.scope import arguments
from benchmarks.hosts import worker_number
from benchmarks.machine.device import device_name
from benchmarks.report.budget import Limit
from benchmarks.workloads import Workload

WORKLOAD = pytest.StashKey[Workload]()
BUDGET = pytest.StashKey[tuple[Limit, ...]]()
OF_TIMES = (
    *(f"--benchmark-{o}" for o in ("columns", "sort", "group-by", "name", "time-unit", "verbose")),
    "--benchmark-histogram", "--benchmark-cprofile",
)  # fmt: skip
"""Options of pytest-benchmark that are about the table of times that it prints."""


def devices(config: pytest.Config) -> list[str]:
    """Return the devices asked for, in order."""
    return list(dict.fromkeys(config.getoption("--device") or ["cpu"]))


def is_verbose(config: pytest.Config) -> bool:
    """Tell whether all that is known is to be printed (-v)."""
    return config.get_verbosity() > 0


def asks_for_times(config: pytest.Config) -> bool:
    """Tell whether pytest-benchmark's own table is asked for: by its options, or by -v."""
    given = {a.partition("=")[0] for a in arguments(config, of_project=False)}
    return is_verbose(config) or not given.isdisjoint(OF_TIMES)


def batch_sizes(config: pytest.Config) -> list[int]:
    """Return the batches that the run's latencies are of, on any of its devices."""
    workload = config.stash[WORKLOAD]
    of = {"cpu": workload.batch_sizes, "cuda": workload.cuda_batch_sizes}
    return sorted({batch for device in devices(config) for batch in of[device]})


def place_of(kind: str) -> torch.device:
    """Return the device of a kind; among several GPUs the worker's number on its host chooses."""
    if kind == "cpu":
        return torch.device("cpu")
    return torch.device("cuda", worker_number() % torch.cuda.device_count())


def training_kind(kinds: Sequence[str]) -> str:
    """Return where the baseline is trained: on a GPU where one is asked for.

    Its weights serve every device: all rows of a table are about one network.
    """
    return "cuda" if "cuda" in kinds else "cpu"


def device_names(kinds: Sequence[str]) -> str:
    """Return the models of the devices asked for, in the order of the options."""
    return " + ".join(device_name(place_of(kind)) for kind in kinds)
