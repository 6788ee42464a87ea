"""A baseline is trained once, by the first process that needs it, and again after a change."""

import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from benchmarks.baseline import (
    cache_path,
    check_outputs,
    keep_baseline,
    trainable_workload,
    weights_fingerprint,
)
from benchmarks.baseline.data import Data
from compression.errors import CompressionError
from tests.support.nets import RECIPE, residual, split
from tests.support.runs import printed_by, run_at_once, run_program
from tests.support.workloads import CPU, TINY, tiny_data, train_baseline


def test_it_trains_once_and_says_how_long() -> None:
    first, lines = train_baseline()
    assert len(lines) == 1 + RECIPE.epochs
    assert "min left" in lines[-1]
    second, again = train_baseline()
    assert again == []
    assert weights_fingerprint(first) == weights_fingerprint(second)
    assert not first.training


def test_a_long_epoch_says_how_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.baseline.progress.LINE_EVERY_S", 0.0)
    lines = train_baseline()[1]
    within = [line for line in lines if ", step " in line]
    assert len(within) == RECIPE.epochs * 64 // RECIPE.batch_size
    assert "epoch 2/2, step 1/4, about " in within[4]
    assert all(line.endswith("min left") for line in lines[1:])
    assert "about 0.0 min left" in lines[-1]


def test_weights_that_are_not_available_are_named() -> None:
    def unreachable() -> torch.nn.Module:
        raise OSError("Network is unreachable")

    lines: list[str] = []
    wanted = replace(TINY, pretrained=unreachable)
    usable = trainable_workload(wanted, tiny_data(), CPU, lines.append)
    assert "pretrained weights are not available (Network is unreachable)" in lines[0]
    assert "random weights" in lines[0]
    assert usable.recipe_fingerprint() != wanted.recipe_fingerprint(), "another recipe"
    train_baseline(usable)


def test_pretrained_weights_are_read_once_and_named_as_before() -> None:
    calls: list[int] = []

    def start() -> torch.nn.Module:
        calls.append(1)
        model = residual(seed=1)
        torch.nn.init.normal_(model.fc.weight)  # a new head, drawn after the recipe's seed
        return model

    wanted = replace(TINY, pretrained=start)
    usable = trainable_workload(wanted, tiny_data(), CPU)
    assert usable.recipe_fingerprint() == wanted.recipe_fingerprint()
    model, _ = train_baseline(usable)
    assert len(calls) == 1
    assert trainable_workload(wanted, tiny_data(), CPU) is wanted, "cached: nothing is read"
    cache_path(wanted, tiny_data(), CPU).unlink()
    again, _ = train_baseline(wanted)
    assert weights_fingerprint(model) == weights_fingerprint(again)
    cache_path(wanted, tiny_data(), CPU).unlink()
    third, _ = train_baseline(usable)
    assert weights_fingerprint(third) == weights_fingerprint(model), "never trained on"


def test_a_gpu_has_a_place_and_a_recipe_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    both = replace(TINY, cuda_recipe=replace(RECIPE, epochs=3))
    gpus = [torch.device("cuda", i) for i in range(2)]
    assert both.recipe_on(gpus[1]).epochs == 3
    assert both.recipe_on(CPU) is RECIPE
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: True)
    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)  # or the next tests had 2
    places = []
    for threads in (1, 2):  # of which xdist's workers have fewer each
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        places.append([cache_path(both, tiny_data(), device) for device in (CPU, *gpus)])
    assert places[0][1] == places[0][2] == places[1][1], "one place for all GPUs"
    assert len({places[0][0], places[1][0], places[0][1]}) == 3
    assert cache_path(both, tiny_data(), CPU) == cache_path(TINY, tiny_data(), CPU)


def test_kept_weights_are_the_next_runs_baseline() -> None:
    model = residual(seed=5)
    path = keep_baseline(model, TINY, tiny_data(), CPU)
    assert path == cache_path(TINY, tiny_data(), CPU)
    found, lines = train_baseline()
    assert lines == [], "nothing was trained"
    assert weights_fingerprint(found) == weights_fingerprint(model)
    keep_baseline(residual(seed=6), TINY, tiny_data(), CPU)
    assert weights_fingerprint(train_baseline()[0]) == weights_fingerprint(model), (
        "nothing is replaced"
    )


def test_a_cache_that_cannot_be_written_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the folder's place")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(CompressionError, match=r"cannot be cached \(Not a directory\); set XDG"):
        train_baseline()


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


def test_a_nan_loss_leaves_nothing_cached() -> None:
    hot = replace(TINY, recipe=replace(RECIPE, learning_rate=1e30))
    with pytest.raises(CompressionError, match="training stopped"):
        train_baseline(hot)
    assert not list(cache_path(hot, tiny_data(), CPU).parent.glob("*.safetensors"))


SCRIPT = """
import os, signal, sys, time
import torch
torch.set_num_threads(1)
from dataclasses import replace
import benchmarks.baseline.training as baseline
from benchmarks.baseline import obtain_baseline, weights_fingerprint
from tests.support.workloads import CPU, TINY, tiny_data
from compression.storage import load_checkpoint
workload = replace(TINY, recipe=replace(TINY.recipe, epochs=4))
fit = baseline.fit
pause, killed = map(float, sys.argv[1:])
def slow(*args, on_epoch, **options):
    def watched(report):
        on_epoch(replace(report, seconds=30.0))  # long enough for a checkpoint an epoch
        print("epoch", report.epoch, flush=True)
        if killed:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(pause)
    fit(*args, on_epoch=lambda r: watched(r), **options)
baseline.fit = slow
model = obtain_baseline(workload, tiny_data(), CPU, load=load_checkpoint, report=print)
print("weights", weights_fingerprint(model), flush=True)
"""


def test_two_processes_train_once_and_agree() -> None:
    outputs = [run.stdout for run in run_at_once(SCRIPT, 0.1, 0)]
    weights = [line for text in outputs for line in text.splitlines() if "weights" in line]
    assert len(weights) == 2
    assert len(set(weights)) == 1
    assert sum("epoch 3" in text for text in outputs) == 1


def test_training_goes_on_after_kill_9(tmp_path: Path) -> None:
    killed = run_program(SCRIPT, 0, 1)
    assert killed.returncode == -signal.SIGKILL
    assert "epoch 0" in killed.stdout
    resumed = printed_by(SCRIPT, 0, 0)
    assert "goes on after epoch 1" in resumed
    assert "epoch 0" not in resumed
    whole = run_program(SCRIPT, 0, 0, XDG_CACHE_HOME=str(tmp_path / "another")).stdout
    assert "epoch 0" in whole
    assert whole.splitlines()[-1] == resumed.splitlines()[-1]


def test_the_cached_file_holds_weights_only() -> None:
    model, _ = train_baseline()
    stored = load_file(cache_path(TINY, tiny_data(), CPU))
    assert stored.keys() == model.state_dict().keys()
