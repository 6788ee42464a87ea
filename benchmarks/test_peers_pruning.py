"""Channels removed by us and by Torch-Pruning: one checkpoint, one budget, one fine-tuning.

`pytest benchmarks/test_peers_pruning.py -m peers --workload cifar10 ...`, with the extra `peers`; the
networks of torchvision by `-k network`, the rest without them by `-k "not network"`.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.baseline import Baseline, Data
from benchmarks.facts.record import record
from benchmarks.gate.rules import accuracy_regression
from benchmarks.peers.coverage import NETWORKS, Outcome, attempt
from benchmarks.peers.pruning import OURS, REMOVERS, missing_torch_pruning
from benchmarks.peers.smaller import BASELINE, MADE, ROWS, TIMED, Contest, Row, rivals
from benchmarks.timing.clock import CLOCK, replay
from benchmarks.timing.speed_up import Pairs, SpeedUp, latency_facts, speed_up
from benchmarks.workloads import Workload

# batch size: what ours must reach, in speeds of the fastest rival at the same budget. The goal of
# every row is 1; at 64 the networks lie within what a shared machine moves between two runs.
AT_LEAST = {1: 1.0, 64: 0.95}
GOAL = 1.0

pytestmark = [pytest.mark.peers, pytest.mark.benchmark(timer=CLOCK)]


def of(rows: Sequence[Row]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("name", [str(row) for row in rows])


@pytest.fixture(scope="module")
def contest(
    tmp_path_factory: pytest.TempPathFactory,
    baseline_on: Callable[[torch.device], Baseline],
    of_classes: None,  # noqa: ARG001 - it skips
) -> Contest:
    return Contest(baseline_on(torch.device("cpu")), tmp_path_factory.mktemp("pruning"))


@pytest.fixture
def row(name: str) -> Row:
    found = next(row for row in ROWS if str(row) == name)
    if found.missing:
        pytest.skip(found.missing)
    return found


@pytest.fixture
def facts(row: Row, data: Data, workload: Workload) -> dict[str, Any]:
    return {
        "technique": str(row),
        "device": "cpu",
        "workload": workload.name,
        "data": data.title,
        "simulated": False,
    }


@of(ROWS)
def test_smaller_size(
    benchmark: Any, request: Any, contest: Contest, row: Row, facts: dict[str, Any]
) -> None:
    account = contest.account(row)
    replay(benchmark, [contest.stored(row).seconds])
    record(benchmark, request, metric="size", **account, **facts)
    whole = contest.account(BASELINE)["macs"]
    assert account["macs"] <= row.macs * whole, f"{account['macs']:,} of {whole:,}"


@of(MADE)
def test_smaller_cost(
    benchmark: Any, request: Any, contest: Contest, row: Row, facts: dict[str, Any]
) -> None:
    seconds = contest.removed(row.engine, row.macs)[1]
    replay(benchmark, [seconds])
    record(benchmark, request, metric="cost", seconds=seconds, **facts)


@of(ROWS)
def test_smaller_accuracy(
    benchmark: Any, request: Any, contest: Contest, row: Row, facts: dict[str, Any]
) -> None:
    own, base = contest.evaluation(row), contest.evaluation(BASELINE)
    replay(benchmark, [own["seconds"]])
    accuracies = {"accuracy": share(own), "baseline_accuracy": share(base)}
    # What is compared is what would be used: networks that were trained.
    others = [contest.evaluation(rival) for rival in rivals(row)] if row.stage else []
    worse = [why for other in others if (why := accuracy_regression(own, other))]
    best = max(map(share, others), default=None)
    record(
        benchmark, request, metric="accuracy", drop=share(base) - share(own),
        target=None if best is None else share(base) - best,
        target_met=None if best is None else not worse, **accuracies, **facts,
        **{key: own[key] for key in ("correct", "total", "correct_images")},
    )  # fmt: skip
    assert not worse, f"against another engine: {worse[0]}"


@of(TIMED)
@pytest.mark.parametrize("batch_size", [1, 64], ids="batch{}".format)
def test_smaller_latency(
    benchmark: Any,
    request: Any,
    contest: Contest,
    row: Row,
    facts: dict[str, Any],
    batch_size: int,
) -> None:
    times = contest.times(batch_size)
    own, others = times[row], rivals(row)
    replay(benchmark, own)
    rival = min(others, key=lambda other: float(np.quantile(times[other], 0.25)), default=None)
    against = SpeedUp(1.0, 1.0, 1.0) if rival is None else speed_up(Pairs(times[rival], own))
    record(
        benchmark, request, timing="wall", batch_size=batch_size,
        target=None if rival is None else GOAL,
        target_met=None if rival is None else against.high >= GOAL,
        rival=None if rival is None else str(rival), rival_ratio=against.value,
        **latency_facts(Pairs(times[BASELINE], own)), **facts,
    )  # fmt: skip
    least = AT_LEAST[batch_size]
    assert against.high >= least, f"{against.value:.2f} of {rival}, at least {least} expected"


@pytest.fixture(scope="module")
def outcome_of() -> Callable[[str, str], Outcome]:
    """Return a function that has an engine halve a network, once."""
    return cache(attempt)


@pytest.mark.parametrize("engine", REMOVERS)
@pytest.mark.parametrize("network", NETWORKS)
def test_smaller_network(
    benchmark: Any, request: Any, outcome_of: Callable[..., Outcome], network: str, engine: str
) -> None:
    skip_without(engine)
    outcome = outcome_of(network, engine)
    replay(benchmark, [outcome.seconds])
    met = bool(outcome.as_zeros) if engine == OURS else None
    record(
        benchmark, request, metric="removal", technique=f"{network}-{engine}", device="cpu",
        workload="networks", data="images at random", simulated=False, target_met=met,
        **asdict(outcome),
    )  # fmt: skip
    assert engine != OURS or outcome.as_zeros is not False, "other outputs than those of zeros"


def test_ours_halves_no_fewer_networks(outcome_of: Callable[..., Outcome]) -> None:
    for engine in REMOVERS:
        skip_without(engine)
    for what in ("macs_left", "as_zeros"):
        ours, theirs = (
            sum(bool(getattr(outcome_of(network, engine), what)) for network in NETWORKS)
            for engine in REMOVERS
        )
        assert ours >= theirs, f"{what}: {ours} networks of {len(NETWORKS)}, theirs {theirs}"


def skip_without(engine: str) -> None:
    reason = missing_torch_pruning()
    if reason and engine != OURS:
        pytest.skip(reason)


def share(evaluation: dict[str, Any]) -> float:
    return float(evaluation["correct"] / evaluation["total"])
