"""What the command line chose, for the conftests: a conftest is no module to import from."""

import pytest

from benchmarks.workloads import Workload

WORKLOAD = pytest.StashKey[Workload]()


def devices(config: pytest.Config) -> list[str]:
    """Return the devices asked for, in order."""
    return list(dict.fromkeys(config.getoption("--device") or ["cpu"]))
