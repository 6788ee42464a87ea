"""Training on a CUDA device: no step waits for it, and a kill changes no batch."""

import json
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from compression.errors import CompressionError
from compression.training import Recipe, Split, correct_images, fit
from compression.training.batches import batches
from tests.support.nets import residual, split
from tests.support.runs import run_pytest
from tests.support.steps import PLAIN, Poison, pictures

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

CUDA = torch.device("cuda", 0)


def waits_of(images: int, optimizer: Any) -> int:
    """Count how often the host waits for the device in one epoch of batches of eight."""
    model, data = residual().to(CUDA), pictures(images).to(CUDA)
    recipe = replace(
        PLAIN, epochs=1, batch_size=8, cutout=4, precision="bfloat16", optimizer=optimizer
    )
    fit(model, data, recipe)  # what waits only once is over
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            fit(model, data, recipe)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return sum("called a synchronizing" in str(warning.message) for warning in found)


@pytest.mark.parametrize("optimizer", ["sgd", "muon"])
def test_no_step_waits_for_the_device(optimizer: str) -> None:
    few, many = waits_of(64, optimizer), waits_of(256, optimizer)  # 8 and 32 steps: between checks
    assert few == many
    assert few > 0, "the epoch's end waits, and is seen to"


def test_the_batches_of_an_epoch_come_again() -> None:
    data = pictures(64).to(CUDA)
    found = [list(batches(data, PLAIN, 1, CUDA)) for _ in range(2)]
    for (inputs, labels), (again, same) in zip(*found, strict=True):
        assert inputs.device == CUDA
        assert torch.equal(inputs, again)
        assert torch.equal(labels, same)


def test_training_taken_up_again_sees_the_same_images() -> None:
    seen: list[list[torch.Tensor]] = []

    def noted(data: Split, **options: Any) -> list[dict[str, Any]]:
        states: list[dict[str, Any]] = []
        seen.append([])

        def loss(logits: torch.Tensor, labels: torch.Tensor, inputs: torch.Tensor) -> Any:
            seen[-1].append(inputs.clone())
            return torch.nn.functional.cross_entropy(logits, labels)

        model = residual().to(CUDA)
        fit(model, data, PLAIN, loss=loss, on_epoch=lambda r: states.append(r.state()), **options)
        return states

    data = pictures(64).to(CUDA)
    states = noted(data)
    noted(data, resume_from={**states[0], "epoch": 0})
    steps = len(seen[1])
    assert 0 < steps < len(seen[0])
    assert all(torch.equal(a, b) for a, b in zip(seen[0][-steps:], seen[1], strict=True))


def test_generators_of_the_device_are_given_back() -> None:
    model = residual().to(CUDA)  # seeds the generators itself
    torch.cuda.manual_seed_all(11)
    before = [torch.cuda.get_rng_state(i) for i in range(torch.cuda.device_count())]
    fit(model, pictures(32).to(CUDA), replace(PLAIN, epochs=1))
    after = [torch.cuda.get_rng_state(i) for i in range(torch.cuda.device_count())]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_a_diverged_epoch_is_never_reported() -> None:
    epochs: list[int] = []
    with pytest.raises(CompressionError, match="became nan in epoch 2 of 3"):
        fit(
            residual().to(CUDA),
            pictures(64).to(CUDA),
            replace(PLAIN, batch_size=16),
            loss=Poison(5),
            on_epoch=lambda report: epochs.append(report.epoch),
        )
    assert epochs == [0]


def test_images_on_the_cpu_train_a_network_on_the_device() -> None:
    model = residual().to(CUDA)
    fit(model, pictures(32), replace(PLAIN, epochs=1))
    assert all(p.device == CUDA for p in model.parameters())


@pytest.mark.filterwarnings("default")
def test_compiled_training_keeps_the_keys_and_learns() -> None:
    data = split(256).to(CUDA)
    recipe = Recipe(epochs=15, batch_size=32, learning_rate=0.05, compiled=True)
    model = residual().to(CUDA)
    keys = model.state_dict().keys()
    fit(model, data, recipe)
    assert model.state_dict().keys() == keys
    assert correct_images(model, data).float().mean() > 0.9


def test_one_network_serves_both_devices(tmp_path: Path) -> None:
    chosen = ["--device", "cpu", "--device", "cuda", "--workload", "tests.support.workloads:TINY"]
    chosen += ["-k", "baseline", f"--benchmark-json={tmp_path / 'run.json'}"]
    run = run_pytest("benchmarks/test_cost.py", "-q", *chosen, XDG_CACHE_HOME=str(tmp_path))
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stdout.count("training 2 epochs") == 1
    saved = json.loads((tmp_path / "run.json").read_text())
    assert torch.cuda.get_device_name(0) in saved["machine_info"]["suite"]["device_name"]
    assert {entry["extra_info"]["device"] for entry in saved["benchmarks"]} == {"cpu", "cuda"}
