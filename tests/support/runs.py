"""Runs of pytest in processes of their own, as a user starts them."""

import atexit
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import torch

from benchmarks.hosts import NUMBER
from compression.integer import lacking
from compression.paths import cache_folder
from tests.support.places import ROOT

XDIST = ("PYTEST_XDIST", NUMBER)
"""How what a worker of xdist is told begins: its number, and how many there are."""
FORKS = sys.platform == "linux"
"""Elsewhere a process that has imported torch may not be forked: each run is started, seconds later."""


def run_pytest(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run pytest in the project's folder, with more of an environment, and return what it printed.

    It has as many threads as the outer run. The outer run's variables of xdist are left out: in a
    worker pytest-benchmark would disable the inner run's benchmarks too.
    """
    options = [f"--num-threads={torch.get_num_threads()}", *arguments]
    if "XDG_CACHE_HOME" in environment:
        keep_library(Path(environment["XDG_CACHE_HOME"]))
    return _run([{"options": options}], environment)[0]


def run_program(
    program: str, *arguments: object, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run a Python program in a process that has imported torch and compression, and done no more."""
    return run_at_once(program, *arguments, count=1, **environment)[0]


def run_at_once(
    program: str, *arguments: object, count: int = 2, **environment: str
) -> list[subprocess.CompletedProcess[str]]:
    """Run a program in so many processes beside each other."""
    request = {"options": [*map(str, arguments)], "program": program}
    return _run([request] * count, environment)


def run_ranks(
    program: str, *arguments: object, count: int = 2, **environment: str
) -> list[subprocess.CompletedProcess[str]]:
    """Run a program in so many processes that find each other as those of torchrun do."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(count)}
    place["LOCAL_WORLD_SIZE"] = str(count)
    requests = [
        {
            "options": [*map(str, arguments)],
            "program": program,
            "environment": {"RANK": str(rank), "LOCAL_RANK": str(rank)},
        }
        for rank in range(count)
    ]
    return _run(requests, place | environment)


def printed_by(program: str, *arguments: object) -> str:
    """Return what a program prints that ends well."""
    done = run_program(program, *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def _run(
    requests: list[dict[str, Any]], changed: dict[str, str]
) -> list[subprocess.CompletedProcess[str]]:
    mine = {name: v for name, v in os.environ.items() if not name.startswith(XDIST)}
    mine.pop("PYTHONDONTWRITEBYTECODE", None)  # or each run would rewrite hypothesis' asserts, 2 s
    with tempfile.TemporaryDirectory() as folder:
        # With a folder of its own for temporary files pytest tidies up no other run's.
        environment = mine | {"PYTEST_DEBUG_TEMPROOT": folder} | changed
        run = _forked if FORKS else _started
        return run(
            [{**r, "environment": environment | r.get("environment", {})} for r in requests],
            Path(folder),
        )


def _forked(requests: list[dict[str, Any]], folder: Path) -> list[subprocess.CompletedProcess[str]]:
    printed = [
        [str(folder / f"{name}-{i}") for name in ("stdout", "stderr")] for i in range(len(requests))
    ]
    server = _server()
    assert server.stdin is not None
    assert server.stdout is not None
    lines = [{**r, "printed": names} for r, names in zip(requests, printed, strict=True)]
    server.stdin.write(json.dumps(lines) + "\n")
    server.stdin.flush()
    codes: list[int] = json.loads(server.stdout.readline())
    return [
        subprocess.CompletedProcess(r["options"], code, *(Path(n).read_text() for n in names))
        for r, code, names in zip(requests, codes, printed, strict=True)
    ]


def _started(requests: list[dict[str, Any]], _: Path) -> list[subprocess.CompletedProcess[str]]:
    runs = []
    for request in requests:
        program = ["-c", request["program"]] if "program" in request else ["-m", "pytest"]
        command = [sys.executable, *program, *request["options"]]
        runs.append(
            subprocess.Popen(
                command, cwd=ROOT, env=request["environment"], text=True,
                stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            )
        )  # fmt: skip
    texts = [run.communicate() for run in runs]
    return [
        subprocess.CompletedProcess(run.args, run.returncode, *text)
        for run, text in zip(runs, texts, strict=True)
    ]


def keep_library(home: Path) -> None:
    """Put the compiled kernels into another cache: compiling takes longer than most runs."""
    if lacking("native") is None:
        folder = home / cache_folder().name
        folder.mkdir(parents=True, exist_ok=True)
        for compiled in cache_folder().glob("native-*.so"):
            if not (folder / compiled.name).exists():  # from an earlier run, or it is this cache
                shutil.copy2(compiled, folder)


@cache
def _server() -> "subprocess.Popen[str]":
    """Return a process that has imported torch, and forks itself for each run: that takes seconds."""
    server = subprocess.Popen(
        [sys.executable, "-m", "tests.support.forking"],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    atexit.register(server.kill)
    return server
