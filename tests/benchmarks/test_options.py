"""A user's mistakes on the command line: one clear error, exit status 4, no traceback of ours."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks.baseline import weights_fingerprint
from benchmarks.hosts import NUMBER
from benchmarks.options import device_names, place_of, training_kind
from benchmarks.workloads import CIFAR10, CIFAR10_PAPER, DIGITS, WORKLOADS, resolve
from compression.errors import CompressionError
from compression.storage import load_checkpoint
from compression.training.recipe import rate_of
from tests.support.fake_cuda import LET_THROUGH
from tests.support.places import ROOT
from tests.support.runs import run_program, run_pytest
from tests.support.workloads import TINY

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
    "quick": (
        ["--quick", "--workload", "cifar10"],
        "--quick is --workload digits-quick, found --workload cifar10 besides: drop one of them",
    ),
    "budget": (["--budget", "file=3MB"], "--budget: file: expected a number and one of MiB, KiB,"),
    "batch of a budget": (
        ["--budget", "latency@64=2ms"],
        "latency@64=2ms: expected a batch of 1 or 32, which digits is timed at, found 64",
    ),
    "data root": (["--workload", "cifar10", "--data-root", "/nowhere"], "/nowhere: no such folder"),
    "data root of digits": (["--data-root", "benchmarks"], "are embedded and read no folder: drop"),
    "data root of others": (
        ["--workload", "cifar10", "--data-root", "benchmarks"],
        "--data-root benchmarks: expected torchvision's cifar-10-batches-py, or image folders",
    ),
    "no data root": (
        ["--workload", "folder"],
        "no folder of images is named: pass --data-root DIR",
    ),
    "data root of images": (
        ["--workload", "folder", "--data-root", "benchmarks"],
        "benchmarks: expected folders train/CLASS and test/CLASS",
    ),
    "network of digits": (
        ["--network", "torchvision:mobilenet_v2"],
        "--network and --size are of --workload folder, found --workload digits",
    ),
    "network": (
        ["--workload", "folder", "--network", "torchvision:resnet19"],
        "unknown architecture 'resnet19'",
    ),
    "size": (["--workload", "folder", "--size", "64by48"], "found '64by48'"),
    "architecture": (
        ["--workload", "tests.support.workloads:TINY", "--baseline", "{tmp}/bad.safetensors"],
        "expected a safetensors file",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_clear_error(name: str, tmp_path: Path) -> None:
    (tmp_path / "bad.safetensors").write_text("not a model at all, but text")
    arguments, message = MISTAKES[name]
    arguments = [a.format(tmp=tmp_path) for a in arguments]
    run = run_pytest("benchmarks/test_cost.py", "-x", "-q", *arguments)
    assert run.returncode == pytest.ExitCode.USAGE_ERROR, run.stdout + run.stderr
    assert message in run.stdout + run.stderr
    assert "Traceback" not in run.stdout + run.stderr
    if name != "architecture":  # of the checkpoint, which is read with the images
        assert "collected" not in run.stdout, "told before anything is imported"


def test_a_technique_that_cannot_be_carried_out_says_why_without_a_traceback(
    tmp_path: Path,
) -> None:
    chosen = ["--workload", "tests.support.workloads:HOT", "-k", "l1-unstructured-60-tuned"]
    run = run_pytest("benchmarks/test_cost.py", "-q", *chosen, XDG_CACHE_HOME=str(tmp_path))
    assert run.returncode == pytest.ExitCode.TESTS_FAILED, run.stdout + run.stderr
    assert "l1-unstructured-60-tuned: training stopped: the loss became" in run.stdout
    assert "loop.py" not in run.stdout


def test_cuda_where_there_is_none_is_refused() -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    run = run_pytest("benchmarks", "--device", "cuda")
    assert run.returncode == pytest.ExitCode.USAGE_ERROR
    assert "no CUDA device" in run.stderr


def test_workloads_resolve_by_name_and_by_attribute() -> None:
    assert [resolve(w.name) for w in (DIGITS, CIFAR10, CIFAR10_PAPER)] == [
        DIGITS,
        CIFAR10,
        CIFAR10_PAPER,
    ]
    assert resolve("tests.support.workloads:TINY").name == TINY.name
    with pytest.raises(CompressionError, match=r"must be a benchmarks.workloads.Workload"):
        resolve("tests.support.workloads:RECIPE")


MINE = """
from dataclasses import replace
from tests.support.workloads import TINY

MINE = replace(TINY, name="mine", rows=("baseline", "float16"))
"""
ELSEWHERE = """
import os, sys, pytest
from tests.support.forking import QUIET

os.chdir(sys.argv.pop(1))
raise SystemExit(pytest.main([*QUIET, *sys.argv[1:]]))
"""


def test_a_module_where_pytest_is_started_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a_project_of_mine.py").write_text(MINE)
    name, before = "a_project_of_mine:MINE", [*sys.path]
    with pytest.raises(CompressionError, match="No module named 'a_project_of_mine'"):
        resolve(name)
    assert resolve(name, tmp_path).name == "mine"
    assert sys.path == before, "for that import only"
    chosen = [str(ROOT / "benchmarks/test_cost.py"), "--workload", name, "--collect-only", "-q"]
    run = run_program(ELSEWHERE, tmp_path, *chosen, "-p", "no:cacheprovider")
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stdout.count("::test_cost[") == 2


FINGERPRINTS = {  # of saved runs and cached baselines: a change costs every user a training
    "digits": "f0149c2a57ac8221",
    "digits-224": "a2209b2b247c1448",
    "cifar10": "881456c3504bd3ae",
    "cifar10-muon": "29f0bd4caa06506f",
    "digits-quick": "a520d56256d8cabf",
    "cifar10-paper": "536a94c664dd75da",
    "folder": "599578499307dcc7",
    "imagenet": "2f174540b8be1a7c",
}


def test_the_recipes_of_a_cpu_keep_their_fingerprints() -> None:
    assert {name: w.recipe_fingerprint() for name, w in WORKLOADS.items()} == FINGERPRINTS
    for unused, used in (
        ({"cutout": 0}, {"cutout": 8}),
        ({"compiled": False}, {"compiled": True}),
        ({"shift_factor": 1.0}, {"shift_factor": 8.0}),
        ({"muon_rate": 0.5, "muon_decay": 0.5}, {"optimizer": "muon"}),
    ):
        found = [replace(TINY, recipe=replace(TINY.recipe, **f)) for f in (unused, used)]
        assert found[0].recipe_fingerprint() == TINY.recipe_fingerprint()
        assert found[1].recipe_fingerprint() != TINY.recipe_fingerprint()


def test_a_gpus_recipe_has_a_fingerprint_of_its_own() -> None:
    assert CIFAR10.recipe_fingerprint("cuda:1") == CIFAR10.recipe_fingerprint("cuda")
    assert CIFAR10.recipe_fingerprint("cuda") != CIFAR10.recipe_fingerprint("cpu")
    assert DIGITS.recipe_fingerprint("cuda") == DIGITS.recipe_fingerprint(), "the same recipe"


@pytest.mark.parametrize(("kinds", "trainer"), [("cpu", "cpu"), ("cuda", "cuda")])
def test_one_device_trains_for_itself(kinds: str, trainer: str) -> None:
    assert training_kind([kinds]) == trainer


def test_of_both_devices_the_gpu_trains_in_either_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"card {device.index}")
    for variable in ("PYTEST_XDIST_WORKER", NUMBER):
        monkeypatch.delenv(variable, raising=False)
    names = [place_of("cuda")]
    for kinds in (["cpu", "cuda"], ["cuda", "cpu"]):
        assert training_kind(kinds) == "cuda"
        cpu = device_names(["cpu"])
        assert device_names(kinds) == " + ".join([cpu, "card 0"][:: 1 if kinds[0] == "cpu" else -1])
    for worker in ("gw0", "gw1", "gw2", "gw3"):
        monkeypatch.setenv("PYTEST_XDIST_WORKER", worker)
        names.append(place_of("cuda"))
    assert names == [torch.device("cuda", i) for i in (0, 0, 1, 0, 1)]
    assert place_of("cpu") == torch.device("cpu")


TWO_DEVICES = f"""{LET_THROUGH}
import benchmarks.options
known = benchmarks.options.place_of
# A second CPU stands for the GPU: equal to no other device, and as good as one.
benchmarks.options.place_of = lambda kind: torch.device("cpu", 0) if kind == "cuda" else known(kind)
"""


@pytest.mark.parametrize("order", [("cpu", "cuda"), ("cuda", "cpu")])
def test_one_training_serves_both_devices(tmp_path: Path, order: tuple[str, str]) -> None:
    (tmp_path / "two_devices.py").write_text(TWO_DEVICES)
    chosen = [argument for kind in order for argument in ("--device", kind)]
    chosen += ["--workload", "tests.support.workloads:TINY", "-k", "baseline or float16"]
    chosen += ["-p", "two_devices", f"--benchmark-json={tmp_path / 'run.json'}"]
    run = run_pytest(
        "benchmarks/test_cost.py",
        "-q",
        *chosen,
        XDG_CACHE_HOME=str(tmp_path),
        PYTHONPATH=str(tmp_path),
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stdout.count("training 2 epochs") == 1
    saved = json.loads((tmp_path / "run.json").read_text())
    names = saved["machine_info"]["suite"]["device_name"].split(" + ")
    assert len(names) == 2
    assert {e["name"].partition("[")[2].partition("-")[0] for e in saved["benchmarks"]} == {*order}
    (kept,) = (tmp_path / "dnn-compression-suite" / "baselines").glob("*.safetensors")
    weights = load_checkpoint(kept, TINY.network)
    fingerprint = saved["machine_info"]["suite"]["baseline_fingerprint"]
    assert fingerprint == weights_fingerprint(weights)


def test_the_papers_protocol_is_the_papers() -> None:
    recipe = CIFAR10_PAPER.recipe
    assert (recipe.epochs, recipe.optimizer) == (10, "adam")
    assert [rate_of(recipe, p) for p in (0.0, 0.5, 0.9)] == pytest.approx([1, 0.1, 0.01])
    assert CIFAR10_PAPER.pretrained is not None
