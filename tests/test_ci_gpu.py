"""What .ci/gpu runs, with a made-up card and a Python that fails one step."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.support.places import ROOT

SCRIPT = ROOT / ".ci" / "gpu"
FAKES = {
    "nvidia-smi": 'echo "Made-up H0 80GB"',
    "python": 'echo "$@"; case "$*" in *"-m training"*) exit 1;; esac',
}


@pytest.fixture
def run(tmp_path: Path):
    (tmp_path / "bin").mkdir()
    for name, body in FAKES.items():
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / "bin" / name).chmod(0o755)

    def run(*arguments: str, fakes: bool = True) -> subprocess.CompletedProcess[str]:
        path = f"{tmp_path / 'bin'}:{os.environ['PATH']}" if fakes else "/usr/bin:/bin"
        command = [str(SCRIPT), *arguments]
        environment = {**os.environ, "PATH": path}
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    return run


def test_every_step_runs_and_a_failed_one_is_named(run, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = run("/images", str(out))
    assert done.returncode == 1
    assert done.stdout.splitlines()[-1] == "failed: training"
    assert {path.stem for path in out.iterdir()} == {"tests", "training", "table", "integer"}
    table = (out / "table.txt").read_text()
    assert "--workload cifar10 --device cuda --data-root /images" in table
    assert f"--benchmark-json={out}/cifar10-cuda-made-up-h0-80gb.json" in table


def test_a_step_takes_no_longer_than_it_may(run, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("STEP_LIMIT_S", "1")
    (tmp_path / "bin" / "python").write_text("#!/bin/sh\necho begun\nsleep 60\n")
    done = run("/images", str(tmp_path / "out"), "tests")
    assert done.stdout.splitlines()[-1] == "failed: tests"
    assert (tmp_path / "out" / "tests.txt").read_text() == "begun\n"


def test_steps_can_be_chosen_and_a_machine_without_a_card_is_told(run, tmp_path: Path) -> None:
    assert run("/images", str(tmp_path / "out"), "integer", "tests").returncode == 0
    assert {path.stem for path in (tmp_path / "out").iterdir()} == {"tests", "integer"}
    assert run().returncode == 4
    if not Path("/usr/bin/nvidia-smi").exists():
        alone = run("/images", str(tmp_path / "none"), fakes=False)
        assert (alone.returncode, (tmp_path / "none").exists()) == (4, False)
        assert "needs an NVIDIA GPU" in alone.stdout
