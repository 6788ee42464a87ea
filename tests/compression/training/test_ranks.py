"""Two processes train as one does."""

from typing import Any

import pytest
import torch
from torch import nn

from compression.errors import CompressionError
from compression.training import shard
from compression.training.norms import Synchronized
from compression.training.ranks import Ranks
from tests.support.ranks import CASES, run_case
from tests.support.runs import run_ranks

PROGRAM = "from tests.support.ranks import main; main()"


@pytest.fixture(scope="module")
def of_two(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    path = tmp_path_factory.mktemp("ranks") / "results"
    runs = run_ranks(PROGRAM, path, *CASES)
    assert [run.returncode for run in runs] == [0, 0], runs[0].stderr + runs[1].stderr
    assert runs[0].stdout == runs[1].stdout, "both processes have one network, bit for bit"
    return torch.load(path, weights_only=True)  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", CASES)
def test_two_processes_give_the_losses_and_the_network_of_one(
    name: str, of_two: dict[str, Any]
) -> None:
    alone, two = run_case(name), of_two[name]
    assert two["losses"] == pytest.approx(alone["losses"], rel=1e-5)
    for key, tensor in alone["state"].items():
        torch.testing.assert_close(two["state"][key], tensor, rtol=1e-4, atol=1e-5)


def test_parts_make_up_a_batch_and_count_once() -> None:
    for world in (1, 2, 3, 7):
        for count in (1, 2, 5, 7, 100):
            shares = [Ranks(rank, world).share(count) for rank in range(world)]
            assert sum(share.images for share in shares) == pytest.approx(count)
            assert sum(share.factor for share in shares) == pytest.approx(world)
            if world > 1 and count >= world:
                parts = [range(count)[share.part] for share in shares]
                assert [i for part in parts for i in part] == [*range(count)]
                assert min(map(len, parts)) > 0
                assert max(map(len, parts)) <= Ranks(0, world).most(count)


FAILING = """
import os, sys, torch
import torch.distributed as dist
from dataclasses import replace
from compression.errors import CompressionError
from tests.support.ranks import RECIPE, baseline, pictures, still
dist.init_process_group("gloo")
one, what = dist.get_rank() == 1, sys.argv[1]
model, train, recipe = still(), pictures(), RECIPE
def after_step():
    if one and what == "step":
        raise KeyError("a mistake of the user's")
    if one and what == "killed":
        os.kill(os.getpid(), 9)
if one and what == "images":
    train = pictures(65)
if one and what == "recipe":
    recipe = replace(RECIPE, learning_rate=0.5)
try:
    baseline(model, train=train, recipe=recipe, after_step=after_step)
except (CompressionError, KeyError) as error:
    print(type(error).__name__, error)
"""


@pytest.mark.parametrize(
    ("what", "first", "second"),
    [
        (
            "step",
            'CompressionError process 1 of 2: "a mistake of the',
            'KeyError "a mistake of the',
        ),
        ("killed", "CompressionError process 0 of 2 lost the connection to another one", ""),
        ("images", "process 1 of 2 trains with another images than process 0", "(process 1: 65)"),
        ("recipe", "process 1 of 2 trains with another recipe than process 0", "another recipe"),
    ],
)
def test_an_error_of_one_ends_both(what: str, first: str, second: str) -> None:
    runs = run_ranks(FAILING, what)
    assert first in runs[0].stdout, runs[0].stderr
    assert second in runs[1].stdout, runs[1].stderr


SHARDED = """
import torch.distributed as dist
from compression import fine_tune
from compression.errors import CompressionError
from compression.training import shard
from tests.support.ranks import RECIPE, pictures, still
dist.init_process_group("gloo")
model = still()
shard(model, "cpu")
try:
    fine_tune(model, pictures(), RECIPE)
except CompressionError as error:
    print(error)
"""


def test_a_sharded_network_is_no_input_of_a_technique() -> None:
    with pytest.raises(CompressionError, match="start them by torchrun"):
        shard(nn.Linear(2, 2), "cpu")
    for run in run_ranks(SHARDED):
        assert "compress it before it is sharded" in run.stdout, run.stderr


def test_batch_norm_on_a_gpu_is_torchs_own(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Any] = []
    kernel = "compression.training.norms.SyncBatchNorm.apply"
    monkeypatch.setattr("torch.Tensor.is_cuda", True)
    monkeypatch.setattr(kernel, lambda *x: given.extend(x))
    norm = nn.BatchNorm2d(3, momentum=0.3)
    with Synchronized(Ranks(0, 2)).within(nn.Sequential(norm)):
        norm(torch.randn(2, 3, 4, 4))
        norm.eval()
        assert norm(torch.randn(2, 3, 4, 4)).shape == (2, 3, 4, 4), "alone in eval mode"
    numbers = norm.weight, norm.bias, norm.running_mean, norm.running_var
    assert all(x is y for x, y in zip(given[1:5], numbers, strict=True))
    assert given[5:] == [norm.eps, 0.3, None, 2]
    assert int(norm.num_batches_tracked) == 1
    assert "forward" not in vars(norm)
