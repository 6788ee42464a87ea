"""A user's mistakes on the command line: one clear error, exit status 4, no traceback of ours."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.workloads import CIFAR10, CIFAR10_PAPER, DIGITS, resolve
from compression.errors import CompressionError
from compression.training.recipe import rate_of
from tests.test_baseline import TINY

ROOT = Path(__file__).resolve().parents[1]

MISTAKES = {
    "workload": (
        ["--workload", "mnist"],
        "unknown workload 'mnist': choose digits, digits-224, cifar10",
    ),
    "module": (["--workload", "nowhere:THING"], "cannot be imported"),
    "baseline": (["--baseline", "nowhere.pt"], "nowhere.pt: no such file"),
    "baseline folder": (["--baseline", "{tmp}"], "expected a file, found a folder"),
    "figures": (["--figures", "{tmp}/bad.safetensors/sub"], "a file is in the folder's place"),
    "unwritable figures": (["--figures", "/proc/nowhere"], "expected a folder to write to"),
    "history": (
        ["--benchmark-compare=benchmarks/references/none.json"],
        "none.json: expected a saved run, No such file",
    ),
    "damaged history": (["--benchmark-compare={tmp}/bad.safetensors"], "not a JSON file"),
    "threads": (["--num-threads", "0"], "at least 1, found 0"),
    "data root": (["--workload", "cifar10", "--data-root", "/nowhere"], "/nowhere: no such folder"),
    "architecture": (["--baseline", "{tmp}/bad.safetensors"], "expected a safetensors file"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_clear_error(name: str, tmp_path: Path) -> None:
    (tmp_path / "bad.safetensors").write_text("not a model at all, but text")
    arguments, message = MISTAKES[name]
    arguments = [a.format(tmp=tmp_path) for a in arguments]
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "benchmarks/test_cost.py", "-x", "-q", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == pytest.ExitCode.USAGE_ERROR, run.stdout + run.stderr
    assert message in run.stdout + run.stderr
    assert "Traceback" not in run.stdout + run.stderr


def test_a_technique_that_cannot_be_carried_out_says_why_without_a_traceback(
    tmp_path: Path,
) -> None:
    chosen = ["--workload", "tests.test_baseline:HOT", "-k", "l1-unstructured-60-tuned"]
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "benchmarks/test_cost.py", "-q", *chosen],
        cwd=ROOT,
        env={**os.environ, "XDG_CACHE_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == pytest.ExitCode.TESTS_FAILED, run.stdout + run.stderr
    assert "l1-unstructured-60-tuned: training stopped: the loss became" in run.stdout
    assert "loop.py" not in run.stdout


def test_cuda_where_there_is_none_is_refused() -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "benchmarks", "--device", "cuda"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == pytest.ExitCode.USAGE_ERROR
    assert "no CUDA device" in run.stderr


def test_workloads_resolve_by_name_and_by_attribute() -> None:
    assert [resolve(w.name) for w in (DIGITS, CIFAR10, CIFAR10_PAPER)] == [
        DIGITS,
        CIFAR10,
        CIFAR10_PAPER,
    ]
    assert resolve("tests.test_baseline:TINY").name == TINY.name
    with pytest.raises(CompressionError, match=r"must be a benchmarks.workloads.Workload"):
        resolve("tests.test_baseline:RECIPE")


def test_the_papers_protocol_is_the_papers() -> None:
    recipe = CIFAR10_PAPER.recipe
    assert (recipe.epochs, recipe.optimizer) == (10, "adam")
    assert [rate_of(recipe, p) for p in (0.0, 0.5, 0.9)] == pytest.approx([1, 0.1, 0.01])
    assert CIFAR10_PAPER.pretrained is not None
