"""Programs in processes of their own."""

import os
import subprocess
import sys

from tests.support.places import ROOT


def in_a_fresh_process(program: str, *arguments: object, **environment: str) -> str:
    """Run a Python program that may import the tests, and return what it prints in two minutes."""
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
