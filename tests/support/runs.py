"""Runs of pytest in processes of their own, as a user starts them."""

import os
import subprocess
import sys

import torch

from tests.support.places import ROOT


def run_pytest(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run pytest in the project's folder, with more of an environment, and return what it printed.

    It has as many threads as the outer run. The outer run's variables of xdist are left out: in a
    worker pytest-benchmark would disable the inner run's benchmarks too.
    """
    threads = f"--num-threads={torch.get_num_threads()}"
    mine = {name: v for name, v in os.environ.items() if not name.startswith("PYTEST_XDIST")}
    return subprocess.run(
        [sys.executable, "-m", "pytest", threads, *arguments],
        cwd=ROOT,
        env={**mine, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
