"""What fails in a run is tried once and said once."""

from pathlib import Path

import pytest
import torch
from torch import nn

from tests.support.runs import run_pytest
from tests.support.workloads import FAILING, HOT

WRONG: dict[str, tuple[str, int]] = {  # what is said, and how often the baseline is trained
    "FAILING": ("epoch 1 of 2: inputs (16, 3, 8, 8) float32", 1),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_baseline_that_cannot_be_had_is_tried_once_and_said_once(
    name: str, tmp_path: Path
) -> None:
    said, trained = WRONG[name]
    chosen = ["--workload", f"tests.support.workloads:{name}", "-k", "baseline or float16"]
    run = run_pytest(
        "benchmarks/test_cost.py",
        "benchmarks/test_size.py",
        "-q",
        *chosen,
        XDG_CACHE_HOME=str(tmp_path),
    )
    assert run.returncode == pytest.ExitCode.USAGE_ERROR, run.stdout + run.stderr
    assert run.stdout.count("training 2 epochs") == trained
    lines = [line for line in run.stdout.splitlines() if said in line]
    assert len(lines) == 1, run.stdout
    assert len(run.stdout.splitlines()) < 20
    assert "Traceback" not in run.stdout + run.stderr


def test_workers_say_what_none_of_them_can_have(tmp_path: Path) -> None:
    chosen = ["--workload", "tests.support.workloads:NO_DATA", "-k", "baseline or float16"]
    run = run_pytest("benchmarks/test_cost.py", "-n", "2", *chosen, XDG_CACHE_HOME=str(tmp_path))
    assert run.returncode == pytest.ExitCode.INTERRUPTED, run.stdout + run.stderr
    assert "Interrupted: KeyError: 'no such column'" in run.stdout
    assert "INTERNALERROR" not in run.stdout
    assert "Traceback" not in run.stdout


COUNTED = """
import benchmarks.artifact as artifact
real = artifact.compress

def counted(technique, *arguments):
    print("compressing", technique)
    return real(technique, *arguments)

artifact.compress = counted
"""


def test_a_technique_that_fails_is_carried_out_once(tmp_path: Path) -> None:
    assert HOT.fine_tune.learning_rate == 1e30
    (tmp_path / "counted.py").write_text(COUNTED)
    chosen = ["--workload", "tests.support.workloads:HOT", "-k", "int8-qat and not taught"]
    run = run_pytest(
        "benchmarks", "-q", "-s", "-p", "counted", *chosen,
        XDG_CACHE_HOME=str(tmp_path), PYTHONPATH=str(tmp_path),
    )  # fmt: skip
    assert run.returncode == pytest.ExitCode.TESTS_FAILED, run.stdout + run.stderr
    assert run.stdout.count("compressing int8-qat") == 1
    assert run.stdout.count("FAILED benchmarks/") >= 4, "each of its tests fails"
    assert "Traceback" not in run.stdout


KILLED = """
import benchmarks.verifier as verifier
real, killed = verifier.start, []

def start(*arguments):
    process = real(*arguments)
    if not killed:
        killed.append(process)
        process._process.kill()
        process._process.wait()
    return process

verifier.start = start
"""


def test_a_killed_verifier_is_one_sentence_and_the_next_case_has_another(tmp_path: Path) -> None:
    (tmp_path / "killed.py").write_text(KILLED)
    chosen = ["--workload", "tests.support.workloads:TINY", "-k", "baseline or float16"]
    run = run_pytest(
        "benchmarks/test_accuracy.py", "-q", "-p", "killed", *chosen,
        XDG_CACHE_HOME=str(tmp_path), PYTHONPATH=str(tmp_path),
    )  # fmt: skip
    assert run.returncode == pytest.ExitCode.TESTS_FAILED, run.stdout + run.stderr
    assert "baseline: benchmarks.verifier was killed by signal 9" in run.stdout
    assert "BrokenPipe" not in run.stdout + run.stderr
    assert "1 failed" in run.stdout
    assert "passed" in run.stdout, "the next technique is verified"


def test_the_workloads_of_these_tests_are_what_they_say() -> None:
    torch.manual_seed(0)
    network: nn.Module = FAILING.network().train()
    for _ in range(3):
        network(torch.rand(2, 3, 8, 8))
    with pytest.raises(KeyError):
        network(torch.rand(2, 3, 8, 8))
