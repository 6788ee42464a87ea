"""A baseline that several processes train is the one that a run of the benchmarks reads."""

import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from benchmarks.train import main
from tests.support.places import ROOT
from tests.support.runs import run_program, run_ranks
from tests.support.workloads import train_baseline

MAIN = """
import os, signal, sys
from dataclasses import replace
import benchmarks.baseline.training as training
from benchmarks import train
fit = training.fit
def watched(*arguments, on_epoch, **options):
    def after(report):
        on_epoch(replace(report, seconds=30.0))  # long enough for a checkpoint per epoch
        if os.environ.get("KILLED") == os.environ.get("RANK", "0"):
            os.kill(os.getpid(), signal.SIGKILL)
    fit(*arguments, on_epoch=after, **options)
training.fit = watched
if "KILLED_WRITING" in os.environ:
    from torch.distributed.checkpoint import FileSystemWriter
    finish, calls = FileSystemWriter.finish, []
    def watched_finish(*arguments, **options):
        calls.append(options)
        if len(calls) == int(os.environ["KILLED_WRITING"]):
            os.kill(os.getpid(), signal.SIGKILL)
        finish(*arguments, **options)
    FileSystemWriter.finish = watched_finish
train.main(sys.argv[1:])
"""
SHARDED = ["--sharded"]
STILL = ["--workload", "tests.support.ranks:STILL", f"--num-threads={torch.get_num_threads()}"]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


def weights(cache: Path) -> dict[str, torch.Tensor]:
    (path,) = cache.rglob("*.safetensors")
    left = [*cache.rglob("*.resume"), *cache.rglob("*.parts-*")]
    assert not left, "nothing is left to go on from"
    return load_file(path)


def ended_well(runs: list["subprocess.CompletedProcess[str]"]) -> str:
    assert [run.returncode for run in runs] == [0] * len(runs), "".join(r.stderr for r in runs)
    assert [run.stdout for run in runs[1:]] == [""] * (len(runs) - 1), "one process reports"
    return runs[0].stdout


def refusal(runs: list["subprocess.CompletedProcess[str]"]) -> str:
    assert all(run.returncode == 1 for run in runs), [run.stderr for run in runs]
    (said,) = [run.stderr for run in runs if run.stderr]
    assert len(said.splitlines()) == 1, said
    return said


def test_torchrun_trains_what_one_process_reads() -> None:
    command = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", free_port()]
    command += ["-m", "benchmarks.train", "--workload", "tests.support.workloads:TINY"]
    command.append(f"--num-threads={torch.get_num_threads()}")
    done = subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("tiny baseline: training 2 epochs of 64 images") == 1
    model, lines = train_baseline()
    assert lines == [], "nothing is trained"
    assert not model.training


def test_two_processes_whole_or_sharded_give_the_weights_of_one(tmp_path: Path) -> None:
    found = {}
    for name, ranks, options in (
        ("one", 1, []), ("two", 2, []), ("sharded", 2, ["--sharded"]),
    ):  # fmt: skip
        home = tmp_path / name
        runs = run_ranks(MAIN, *STILL, *options, count=ranks, XDG_CACHE_HOME=str(home))
        assert "training 3 epochs" in ended_well(runs)
        again = run_ranks(MAIN, *STILL, *options, count=ranks, XDG_CACHE_HOME=str(home))
        assert "training" not in ended_well(again), "it is there"
        found[name] = weights(home)
        (path,) = home.rglob("*.safetensors")
        assert str(path) in runs[0].stdout
        assert path.name == next((tmp_path / "one").rglob("*.safetensors")).name
    for key, tensor in found["one"].items():
        for other in ("two", "sharded"):
            torch.testing.assert_close(found[other][key], tensor, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("options", "again"), [([], 2), ([], 1), (SHARDED, 2)])
def test_a_killed_training_goes_on(options: list[str], again: int, tmp_path: Path) -> None:
    killed = run_ranks(MAIN, *STILL, *options, KILLED="0")
    assert killed[0].returncode == -signal.SIGKILL
    assert "epoch 1/3" in killed[0].stdout
    assert killed[1].returncode == 1
    assert killed[1].stdout == ""
    more = options if again == 2 else []
    resumed = ended_well(run_ranks(MAIN, *STILL, *more, count=again))
    assert "goes on after epoch 1" in resumed
    assert "epoch 1/3" not in resumed
    ended_well(run_ranks(MAIN, *STILL, *options, XDG_CACHE_HOME=str(tmp_path / "whole")))
    whole = weights(tmp_path / "whole")
    (path,) = (tmp_path / "dnn-compression-suite").rglob("*.safetensors")
    for key, tensor in load_file(path).items():
        if again == 2:
            assert torch.equal(tensor, whole[key]), key
        else:
            torch.testing.assert_close(tensor, whole[key], rtol=1e-4, atol=1e-5)


def test_a_sharded_training_killed_as_it_writes_goes_on(tmp_path: Path) -> None:
    cache, damaged = (
        folder / "dnn-compression-suite" for folder in (tmp_path, tmp_path / "damaged")
    )
    killed = run_ranks(MAIN, *STILL, *SHARDED, KILLED_WRITING="2")
    assert killed[0].returncode == -signal.SIGKILL
    first, second = sorted(cache.rglob("*.parts-*"))
    parts = {"__0_0.distcp", "__1_0.distcp"}
    assert {path.name for path in first.iterdir()} == {*parts, ".metadata"}, "one of each process"
    assert {path.name for path in second.iterdir()} == parts, "half-written"

    shutil.copytree(cache, damaged)
    (path,) = damaged.rglob("*.parts-0/__1_0.distcp")
    path.write_bytes(flipped(path.read_bytes()))
    anew = run_ranks(MAIN, *STILL, count=1, XDG_CACHE_HOME=str(damaged.parent))
    assert f"{path.parent}: damaged" in ended_well(anew)
    assert "epoch 1/3" in anew[0].stdout

    killed = run_ranks(MAIN, *STILL, count=1, KILLED="0")
    assert f"goes on after epoch 1 ({first})" in killed[0].stdout
    assert "epoch 2/3" in killed[0].stdout
    assert not list(cache.rglob("*.parts-*")), "what is older is deleted"
    resumed = ended_well(run_ranks(MAIN, *STILL, *SHARDED))
    assert "goes on after epoch 2" in resumed
    whole = weights(damaged)
    for key, tensor in weights(cache).items():
        torch.testing.assert_close(tensor, whole[key], rtol=1e-4, atol=1e-5)


def test_a_sharded_training_that_cannot_be_kept_goes_on(cache: Path) -> None:
    ended_well(run_ranks(MAIN, *STILL, count=1))
    (path,) = cache.rglob("*.safetensors")
    path.unlink()
    in_the_way = path.with_suffix(".parts-0")
    in_the_way.touch()
    assert "parts-0: not written, FileExistsError" in said_once(run_ranks(MAIN, *STILL, *SHARDED))
    in_the_way.unlink()
    assert weights(cache)
    apart = run_ranks(APART + MAIN, *STILL, *SHARDED)
    assert "do not see each other's files; set XDG_CACHE_HOME" in said_once(apart)
    assert not list(cache.parent.rglob("*.parts-*"))


APART = "import os; os.environ['XDG_CACHE_HOME'] += '/host' + os.environ['RANK']\n"


def said_once(runs: list["subprocess.CompletedProcess[str]"]) -> str:
    lines = ended_well(runs).splitlines()
    (said,) = [line for line in lines if "training goes on, and a kill would cost" in line]
    return said


def flipped(data: bytes) -> bytes:
    return data[:-100] + bytes([data[-100] ^ 1]) + data[-99:]


WRONG = {
    "SMALL_BATCHES": "a batch of 1 images cannot be divided among 2 processes",
    "OTHER_IMAGES": "has images with the fingerprint",
    "HOT": "the loss became",
    "NAN_IN_ONE": "the loss became nan in epoch 1 of 3",
    "FAILING_IN_ONE": "cannot be made into inputs (prepare and augment, cutout 3): KeyError",
}


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_be_trained_together_is_said_once(name: str) -> None:
    runs = run_ranks(MAIN, "--workload", f"tests.support.ranks:{name}", "--timeout=20")
    assert WRONG[name] in refusal(runs)


def test_another_torch_is_refused() -> None:
    other = "import os, torch; torch.__version__ += '+other' * (os.environ['RANK'] == '1')\n"
    assert "has torch 2" in refusal(run_ranks(other + MAIN, *STILL))


def free_port() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


@pytest.mark.parametrize("rank", [0, 1])
def test_processes_that_do_not_meet_say_where(rank: int) -> None:
    place: dict[str, Any] = {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
    place["MASTER_PORT"] = free_port()
    run = run_program(MAIN, *STILL, "--timeout=1", **place)
    assert run.returncode == 1
    said = run.stderr.splitlines()[-1]  # torch's own lines stand before it
    assert (
        f"process {rank} of 2 did not meet the others at 127.0.0.1:{place['MASTER_PORT']}" in said
    )
    assert "within 1 s" in said
    assert "MASTER_ADDR is the host of process 0" in said


REFUSED: dict[str, tuple[list[str], dict[str, str]]] = {
    "RANK, MASTER_ADDR, MASTER_PORT is not set": ([], {"WORLD_SIZE": "2"}),
    "--sharded divides the network among processes, found one": (["--sharded"], {}),
    "--num-threads must be at least 1, found 0": (["--num-threads=0"], {}),
    "unknown workload 'nothing'": (["--workload=nothing"], {}),
    "the digits are embedded and read no folder": (["--data-root=here", "--workload=digits"], {}),
}


@pytest.mark.parametrize("said", REFUSED)
def test_a_wrong_command_is_one_sentence(said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    options, environment = REFUSED[said]
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as error:
        main([*STILL, *options])
    assert said in str(error.value)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_a_device_that_is_not_there_is_named() -> None:
    with pytest.raises(SystemExit) as error:
        main([*STILL, "--device", "cuda"])
    assert "torch can use none" in str(error.value)


def test_without_torchrun_one_process_trains(
    cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "WORLD_SIZE" not in os.environ
    main(["--workload", "tests.support.workloads:TINY", f"--num-threads={torch.get_num_threads()}"])
    assert "training 2 epochs" in capsys.readouterr().out
    assert train_baseline()[1] == []
