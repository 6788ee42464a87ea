import os
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from benchmarks.baseline import (
    cache_path,
    check_outputs,
    trainable,
    trained_baseline,
    weights_fingerprint,
)
from benchmarks.data import Data
from benchmarks.workloads import DIGITS, Workload
from compression.errors import CheckpointError, CompressionError
from compression.storage import load_checkpoint
from tests.nets import RECIPE, residual, split

ROOT = Path(__file__).resolve().parents[1]
CPU = torch.device("cpu")


def tiny_data(_: Path | None = None) -> Data:
    return Data(split(64), split(16, 1), split(16, 2), title="noise")


TINY: Workload = replace(
    DIGITS, name="tiny", network=residual, data=tiny_data, recipe=RECIPE, batch_sizes=(1, 4)
)


HOT: Workload = replace(TINY, fine_tune=replace(RECIPE, learning_rate=1e30))


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


def train(workload: Workload = TINY) -> tuple[torch.nn.Module, list[str]]:
    lines: list[str] = []
    model = trained_baseline(workload, tiny_data(), CPU, load=load_checkpoint, report=lines.append)
    return model, lines


def test_it_trains_once_and_says_how_long() -> None:
    first, lines = train()
    assert len(lines) == 1 + RECIPE.epochs
    assert "min left" in lines[-1]
    second, again = train()
    assert again == []
    assert weights_fingerprint(first) == weights_fingerprint(second)
    assert not first.training


def test_a_long_epoch_says_how_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.baseline.LINE_EVERY_S", 0.0)
    lines = train()[1]
    within = [line for line in lines if ", step " in line]
    assert len(within) == RECIPE.epochs * 64 // RECIPE.batch_size
    assert "epoch 2/2, step 1/4, about " in within[4]
    assert all(line.endswith("min left") for line in lines[1:])
    assert "about 0.0 min left" in lines[-1]


def test_weights_that_cannot_be_had_are_said() -> None:
    def unreachable() -> torch.nn.Module:
        raise OSError("Network is unreachable")

    lines: list[str] = []
    wanted = replace(TINY, pretrained=unreachable)
    usable = trainable(wanted, tiny_data(), CPU, lines.append)
    assert "pretrained weights cannot be had (Network is unreachable)" in lines[0]
    assert "random weights" in lines[0]
    assert usable.recipe_fingerprint() != wanted.recipe_fingerprint(), "another recipe"
    train(usable)
    reachable = replace(wanted, pretrained=lambda: residual(seed=1))
    assert trainable(reachable, tiny_data(), CPU) is reachable, "and trained from them later on"


def test_a_cache_that_cannot_be_written_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the folder's place")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(CompressionError, match=r"cannot be cached \(Not a directory\); set XDG"):
        train()


def narrow() -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 64, 1))


@pytest.mark.parametrize("part", ["network", "student"])
def test_a_label_without_an_output_is_refused(part: str) -> None:
    check_outputs(replace(TINY, student=residual), tiny_data())
    with pytest.raises(CompressionError, match=rf"its {part} has 1 outputs.* found 0 to 1"):
        check_outputs(replace(replace(TINY, student=residual), **{part: narrow}), tiny_data())


def test_a_network_that_cannot_take_the_images_is_refused() -> None:
    with pytest.raises(CompressionError, match=r"cannot take an input of shape \(1, 3, 8, 8\)"):
        check_outputs(replace(TINY, network=lambda: torch.nn.Linear(3, 2)), tiny_data())


def test_another_recipe_or_other_data_trains_again() -> None:
    paths = {
        cache_path(TINY, tiny_data(), CPU),
        cache_path(replace(TINY, recipe=replace(RECIPE, seed=1)), tiny_data(), CPU),
        cache_path(replace(TINY, network=torch.nn.Identity), tiny_data(), CPU),
        cache_path(TINY, Data(split(64, 5), split(16, 1), split(16, 2), title="noise"), CPU),
    }
    assert len(paths) == 4


def test_a_damaged_cache_is_named_with_its_remedy() -> None:
    train()
    path = cache_path(TINY, tiny_data(), CPU)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="delete the file to train it again"):
        train()


def test_a_nan_loss_leaves_nothing_cached() -> None:
    hot = replace(TINY, recipe=replace(RECIPE, learning_rate=1e30))
    with pytest.raises(CompressionError, match="training stopped"):
        train(hot)
    assert not list(cache_path(hot, tiny_data(), CPU).parent.glob("*.safetensors"))


SCRIPT = """
import sys, time
import torch
from pathlib import Path
sys.path.insert(0, {root!r})
torch.set_num_threads(1)
from dataclasses import replace
import compression.training as training
import benchmarks.baseline as baseline
from tests.test_baseline import CPU, TINY, tiny_data
from compression.storage import load_checkpoint
workload = replace(TINY, recipe=replace(TINY.recipe, epochs=4))
fit = baseline.fit
def slow(*args, on_epoch, **options):
    def watched(report):
        on_epoch(replace(report, seconds=30.0))  # long enough for a checkpoint an epoch
        print("epoch", report.epoch, flush=True)
        time.sleep({pause})
    fit(*args, on_epoch=lambda r: watched(r), **options)
baseline.fit = slow
model = baseline.trained_baseline(workload, tiny_data(), CPU, load=load_checkpoint, report=print)
print("weights", baseline.weights_fingerprint(model), flush=True)
"""


def start(pause: float) -> "subprocess.Popen[str]":
    code = textwrap.dedent(SCRIPT).format(root=str(ROOT), pause=pause)
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)


def test_two_processes_train_once_and_agree() -> None:
    outputs = [process.communicate(timeout=120)[0] for process in [start(0.1), start(0.1)]]
    weights = [line for text in outputs for line in text.splitlines() if "weights" in line]
    assert len(weights) == 2
    assert len(set(weights)) == 1
    assert sum("epoch 3" in text for text in outputs) == 1


def test_training_goes_on_behind_kill_9(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    process = start(60)
    assert process.stdout is not None
    while "epoch 0" not in process.stdout.readline():
        pass
    time.sleep(0.2)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    resumed = start(0).communicate(timeout=120)[0]
    assert "goes on behind epoch 1" in resumed
    assert "epoch 0" not in resumed
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another"))
    whole = start(0).communicate(timeout=120)[0]
    assert "epoch 0" in whole
    assert whole.splitlines()[-1] == resumed.splitlines()[-1]


def test_the_cached_file_holds_weights_only() -> None:
    model, _ = train()
    stored = load_file(cache_path(TINY, tiny_data(), CPU))
    assert stored.keys() == model.state_dict().keys()
