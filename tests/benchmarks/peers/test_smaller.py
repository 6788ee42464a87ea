"""A row's file holds its network, whatever engine made it; and the networks that engines halve."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from benchmarks.baseline import Baseline
from benchmarks.peers import coverage
from benchmarks.peers.coverage import Outcome, attempt, halve
from benchmarks.peers.pruning import OURS, REMOVERS, missing_torch_pruning
from benchmarks.peers.smaller import BASELINE, Contest, Row
from compression.errors import CompressionError
from tests.support.nets import images
from tests.support.workloads import CPU, TINY, tiny_data


def wide() -> nn.Module:
    """Return a network whose widths engines may round to 16."""
    body = [nn.Conv2d(3, 64, 3), nn.BatchNorm2d(64), nn.ReLU(), nn.Conv2d(64, 64, 3)]
    return nn.Sequential(*body, nn.BatchNorm2d(64), nn.ReLU(), nn.Flatten(), nn.Linear(1024, 4))


@pytest.fixture(params=REMOVERS)
def engine(request) -> str:
    reason = missing_torch_pruning()
    if reason and request.param != OURS:
        pytest.skip(reason)
    return request.param


@pytest.fixture
def contest(tmp_path: Path) -> Contest:
    torch.manual_seed(0)
    workload = replace(TINY, network=wide)
    return Contest(Baseline(wide().eval(), tiny_data(), workload, CPU), tmp_path)


def test_a_row_is_made_stored_and_evaluated_once(contest: Contest, engine: str) -> None:
    account = contest.account(Row(engine, 0.5, "tuned"))
    assert account["macs"] <= contest.account(BASELINE)["macs"] / 2
    assert account["stored_bytes"] < account["baseline_stored_bytes"]
    tuned, whole = (
        contest.stored(Row(engine, 0.5, "tuned")).load(),
        contest.stored(Row(engine, 0.5)),
    )
    assert not torch.equal(tuned[0].weight, whole.load()[0].weight)
    assert contest.evaluation(Row(engine, 0.5))["total"] == 16
    assert contest.stored(Row(engine, 0.5)) is whole


def test_the_int8_row_is_that_of_the_trained_network(contest: Contest, engine: str) -> None:
    tuned, int8 = (
        contest.predictor(Row(engine, 0.5, stage), images()) for stage in ("tuned", "int8")
    )
    with torch.no_grad():
        wanted, found = tuned(images()), int8(images())
    assert 0 < (found - wanted).abs().max() <= 0.1 * wanted.abs().max()


def test_an_engine_that_changes_other_channels_is_told(monkeypatch) -> None:
    remove = REMOVERS[OURS]

    def change(model: nn.Module, example, macs: float) -> nn.Module:
        smaller = remove(model, example, macs)
        with torch.no_grad():
            smaller.features[0].weight[0] += 1
        return smaller

    monkeypatch.setitem(REMOVERS, "changes", change)
    right, wrong = halve("squeezenet1_1", OURS), halve("squeezenet1_1", "changes")
    assert (right.as_zeros, wrong.as_zeros) == (True, False)
    assert right.macs_left == wrong.macs_left <= 0.5
    assert right.seconds > 0


@pytest.mark.parametrize(
    ("error", "refusal"),
    [
        (CompressionError("a  budget out\nof reach"), "a budget out of reach"),
        (KeyError("a key"), "KeyError: 'a key'"),
        (MemoryError(), "takes more than 8 GiB"),
        (CompressionError("no " * 13), "no no no no no no no no no no no no ..."),
    ],
)
def test_an_engine_that_fails_says_why(monkeypatch, error: Exception, refusal: str) -> None:
    def fail(*_):
        raise error

    monkeypatch.setitem(REMOVERS, "fails", fail)
    outcome = halve("squeezenet1_1", "fails")
    assert outcome == Outcome(outcome.seconds, refusal=refusal)


def test_an_engine_without_end_is_stopped(monkeypatch) -> None:
    monkeypatch.setattr(coverage, "LIMIT_S", 0.01)
    assert attempt("squeezenet1_1", OURS) == Outcome(0.01, refusal="takes more than 0 s")


def test_an_outcome_comes_from_a_process_of_its_own() -> None:
    outcome = attempt("squeezenet1_1", OURS)
    assert outcome.as_zeros
    assert outcome.macs_left <= 0.5
