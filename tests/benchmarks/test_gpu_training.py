"""The clock of a training: what it tells, what is kept of it, and that a CPU is refused."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks.baseline import obtain_baseline, weights_fingerprint
from benchmarks.facts.record import PROPERTY, record
from benchmarks.gpu_training import TRAININGS, Training, time_training
from benchmarks.report.figures import write_figures
from benchmarks.report.rows import rows
from benchmarks.report.table import render
from benchmarks.workloads import WORKLOADS
from compression.storage import load_checkpoint
from compression.training import correct_images
from tests.support.fake_cuda import LET_THROUGH
from tests.support.nets import RECIPE
from tests.support.runs import run_pytest
from tests.support.workloads import CPU, TINY, tiny_data

TRAIN_IMAGES = 48_000  # of CIFAR-10, without the 2,000 for validation


def test_the_clock_tells_what_a_training_took_and_reached(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    lines: list[str] = []
    model, found = time_training(TINY, tiny_data(), CPU, lines.append)
    assert len(lines) == 1 + RECIPE.epochs
    assert not list(tmp_path.rglob("*")), "nothing is cached, nothing is taken from a cache"
    assert found["seconds"] > found["first_epoch_s"] > 0
    assert found["images_per_s"] * found["seconds"] > 64
    assert (found["epochs"], found["batch_size"], found["compiled"]) == (2, 16, False)
    correct = correct_images(model, tiny_data().test)
    assert (found["correct"], found["total"]) == (int(correct.sum()), 16)
    assert found["accuracy"] == pytest.approx(found["correct"] / 16)
    same = obtain_baseline(TINY, tiny_data(), CPU, load=load_checkpoint, report=lines.append)
    assert weights_fingerprint(same) == weights_fingerprint(model), "as a run would train it"


def test_its_facts_are_plain_and_fit_the_table_and_the_figures(tmp_path: Path) -> None:
    _, found = time_training(TINY, tiny_data(), CPU, print)
    benchmark = SimpleNamespace(extra_info={})
    request: Any = SimpleNamespace(node=SimpleNamespace(user_properties=[]))
    about = {"technique": "training-tiny", "device": "cuda", "workload": "tiny", "data": "noise"}
    record(
        benchmark, request, metric="training", simulated=False, target_met=False, **about, **found
    )
    ((name, facts),) = request.node.user_properties
    assert name == PROPERTY
    text = render(rows([facts]))
    assert "training-tiny" in text
    assert text.splitlines()[2].endswith("NO")
    assert write_figures([facts], tmp_path)[0] == []


def test_a_row_with_another_recipe_is_another_place() -> None:
    other = replace(RECIPE, epochs=3)
    for device in ("cpu", "cuda"):
        own, changed = (Training(TINY, 1, 0.5, recipe=r).workload for r in (None, other))
        assert own is TINY
        assert changed.recipe_on(device) == other
        assert changed.recipe_fingerprint(device) != TINY.recipe_fingerprint(device)


@pytest.mark.parametrize("name", TRAININGS)
def test_the_rows_are_in_bfloat16_and_their_batches_of_one_shape(name: str) -> None:
    row = TRAININGS[name]
    recipe = row.workload.recipe_on("cuda")
    assert recipe.precision == "bfloat16"
    assert TRAIN_IMAGES % recipe.batch_size == 0, "a second shape would be compiled too"
    if row.recipe is None and row.workload.pretrained is not None:
        assert row.workload == WORKLOADS[row.workload.name], "or it is not kept for a run"


def test_without_a_gpu_it_is_skipped_with_its_reason(tmp_path: Path) -> None:
    run = run_pytest(
        "benchmarks/test_training.py", "-m", "training", "-rs", XDG_CACHE_HOME=str(tmp_path)
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert f"{len(TRAININGS)} skipped" in run.stdout
    assert "trains on a GPU: pass --device cuda" in run.stdout


OUTCOMES = {"own": "PASSED", "other": "PASSED", "slow": "FAILED", "poor": "FAILED"}
FAKED = f"""{LET_THROUGH}
import benchmarks.options
import benchmarks.gpu_training as trainings
from tests.support.workloads import TINY
from dataclasses import replace

benchmarks.options.place_of = lambda kind: torch.device("cpu")  # which stands for the GPU
other = replace(TINY.recipe, epochs=1)
trainings.TRAININGS = {{
    "own": trainings.Training(TINY, seconds=1e9, accuracy=0.0),
    "other": trainings.Training(TINY, seconds=1e9, accuracy=0.0, recipe=other),
    "slow": trainings.Training(TINY, seconds=1e-9, accuracy=0.0, recipe=other),
    "poor": trainings.Training(TINY, seconds=1e9, accuracy=1.1, recipe=other),
}}
"""


def test_both_targets_are_asserted_and_a_workloads_own_weights_kept(tmp_path: Path) -> None:
    (tmp_path / "faked.py").write_text(FAKED)
    chosen = ["-m", "training", "-p", "faked", "--device", "cuda", "-rA"]
    run = run_pytest(
        "benchmarks/test_training.py",
        *chosen,
        XDG_CACHE_HOME=str(tmp_path),
        PYTHONPATH=str(tmp_path),
    )
    assert run.returncode == pytest.ExitCode.TESTS_FAILED, run.stdout + run.stderr
    for name, outcome in OUTCOMES.items():
        assert f"{outcome} benchmarks/test_training.py::test_training[{name}]" in run.stdout
    (kept,) = (tmp_path / "dnn-compression-suite" / "baselines").glob("*.safetensors")
    model = load_checkpoint(kept, TINY.network)
    again, _ = time_training(TINY, tiny_data(), CPU, print)
    assert weights_fingerprint(model) == weights_fingerprint(again)
