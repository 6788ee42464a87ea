"""The engines that a user would pick instead: the same checkpoint, images, threads and batch.

`pytest benchmarks/test_peers.py -m peers --workload cifar10 ...`, with the extra `peers`. Each engine
has a process of its own; they are woken in turn, so that their rounds interleave.
"""

from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from benchmarks.baseline import Baseline, Data
from benchmarks.baseline.examples import all_labels
from benchmarks.facts.record import record
from benchmarks.peers.coders import (
    CodedFile,
    by_compression,
    by_nncodec,
    missing_nncodec,
    smallest,
)
from benchmarks.peers.competition import Competition, missing
from benchmarks.peers.engines import BASELINE, BY_NAME, ENGINES, OURS, PEERS, Engine
from benchmarks.timing.clock import CLOCK, replay
from benchmarks.timing.speed_up import Pairs, SpeedUp, latency_facts, speed_up
from benchmarks.workloads import Workload
from compression.pruning import prune_l1_global

CALIBRATION_IMAGES = 300
MAX_SECONDS = 5.0
MAX_DROP = {"cifar10": 0.0015, "digits-224": 0.005}
# batch size: what our own executor must reach, in speeds of the fastest peer's INT8. The goal of every
# row of ours is 1; the table says where it is missed. At 64 the engines lie within what a shared
# machine moves between two runs.
AT_LEAST = {1: 1.0, 64: 0.95}
GOAL = 1.0
# What nncodec and our files are compared at: squared error over squared norm, of weights of which
# 85% are pruned.
ERROR_BUDGETS = (0.001, 0.01, 0.05)
SPARSITY = 0.85

pytestmark = [
    pytest.mark.peers,
    pytest.mark.benchmark(timer=CLOCK),
]
every_engine = pytest.mark.parametrize("engine", [engine.name for engine in ENGINES])


@pytest.fixture(scope="module")
def peers(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    data: Data,
    baseline_on: Callable[[torch.device], Baseline],
    of_classes: None,  # noqa: ARG001 - it skips
) -> Iterator[Competition]:
    folder = tmp_path_factory.mktemp("peers")
    state = baseline_on(torch.device("cpu")).model.state_dict()
    save_file({k: v.contiguous() for k, v in state.items()}, folder / "baseline.safetensors")
    images = {
        "calibration": data.train.inputs(slice(0, CALIBRATION_IMAGES)),
        "validation": data.validation.inputs(slice(0, 64)),
        "test": data.test.inputs(slice(0, len(data.test))),
        "labels": all_labels(data.test),
    }
    save_file({k: v.contiguous() for k, v in images.items()}, folder / "images.safetensors")
    competition = Competition(
        request.config.getoption("--workload"), folder, num_classes=data.num_classes
    )
    yield competition
    competition.close()


@pytest.fixture
def subject(engine: str) -> Engine:
    reason = missing(BY_NAME[engine])
    if reason:
        pytest.skip(reason)
    return BY_NAME[engine]


@pytest.fixture
def facts(subject: Engine, data: Data, workload: Workload) -> dict[str, Any]:
    return {
        "technique": subject.name,
        "device": "cpu",
        "workload": workload.name,
        "data": data.title,
        "simulated": False,
    }


@every_engine
def test_peer_size(
    benchmark: Any, request: Any, subject: Engine, peers: Competition, facts: dict[str, Any]
) -> None:
    file = peers.file_facts(subject)
    replay(benchmark, [file["seconds"]])
    sizes = {
        "stored_bytes": file["stored_bytes"],
        "baseline_stored_bytes": peers.file_facts(BASELINE)["stored_bytes"],
    }
    record(benchmark, request, metric="size", **sizes, **facts)
    assert sizes["stored_bytes"] > 0


@every_engine
def test_peer_cost(
    benchmark: Any, request: Any, subject: Engine, peers: Competition, facts: dict[str, Any]
) -> None:
    seconds = peers.file_facts(subject)["seconds"]
    replay(benchmark, [seconds])
    limit = MAX_SECONDS if subject in OURS else None
    met = None if limit is None else seconds <= limit
    record(
        benchmark, request, metric="cost", seconds=seconds, target=limit, target_met=met,
        calibration_images=CALIBRATION_IMAGES, **facts,
    )  # fmt: skip
    assert met is not False, f"{seconds:.1f} s to quantize, at most {limit} expected"


@every_engine
def test_peer_accuracy(
    benchmark: Any,
    request: Any,
    subject: Engine,
    peers: Competition,
    facts: dict[str, Any],
    workload: Workload,
) -> None:
    own, baseline = peers.evaluation(subject), peers.evaluation(BASELINE)
    replay(benchmark, [peers.file_facts(subject)["seconds"]])
    accuracy, base = (f["correct"] / f["total"] for f in (own, baseline))
    limit = MAX_DROP.get(workload.name) if subject in OURS else None
    met = None if limit is None else base - accuracy <= limit
    accuracies = {"accuracy": accuracy, "baseline_accuracy": base, "drop": base - accuracy}
    record(
        benchmark, request, metric="accuracy", target=limit, target_met=met,
        **accuracies, **own, **facts,
    )  # fmt: skip
    assert met is not False, f"a drop of {base - accuracy:.2%}, at most {limit:.2%}"


@every_engine
@pytest.mark.parametrize("batch_size", [1, 64], ids="batch{}".format)
def test_peer_latency(
    benchmark: Any,
    request: Any,
    subject: Engine,
    peers: Competition,
    facts: dict[str, Any],
    batch_size: int,
) -> None:
    times = peers.times(batch_size)
    own = times[subject.name]
    replay(benchmark, own)
    rival, against = _against_peers(own, times)
    met = against.high >= GOAL if subject in OURS and rival else None
    record(
        benchmark, request, timing="wall", batch_size=batch_size,
        target=GOAL if subject in OURS else None, target_met=met, rival=rival,
        rival_ratio=against.value, **latency_facts(Pairs(times[BASELINE.name], own)), **facts,
    )  # fmt: skip
    least = AT_LEAST[batch_size] if subject is OURS[0] else 0.0
    assert against.high >= least, f"{against.value:.2f} of {rival}, at least {least} expected"


@pytest.fixture(scope="module")
def coded(
    baseline_on: Callable[[torch.device], Baseline], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str, float], CodedFile]:
    """Return a function that gives a coder's smallest file of the sparse baseline within a budget."""
    model = prune_l1_global(baseline_on(torch.device("cpu")).model, amount=SPARSITY).eval()
    folder = tmp_path_factory.mktemp("coders")
    of_nncodec = cache(lambda: list(by_nncodec(model, folder)))

    @cache
    def get(coder: str, budget: float) -> CodedFile:
        files = of_nncodec() if coder == "nncodec" else by_compression(model, budget, folder)
        file = smallest(files, budget)
        assert file is not None, f"{coder} has no file within {budget:.1%}"
        return file

    return get


@pytest.mark.parametrize("coder", ["nncodec", "compression"])
@pytest.mark.parametrize("budget", ERROR_BUDGETS, ids="error{:g}".format)
def test_peer_coder(
    benchmark: Any,
    request: Any,
    coded: Callable[[str, float], CodedFile],
    workload: Workload,
    data: Data,
    coder: str,
    budget: float,
) -> None:
    reason = missing_nncodec()
    if reason and coder == "nncodec":
        pytest.skip(reason)
    file = coded(coder, budget)
    rival = None if reason or coder == "nncodec" else coded("nncodec", budget).stored_bytes
    replay(benchmark, [file.encode_s])
    met = None if rival is None else file.stored_bytes <= rival
    record(
        benchmark, request, metric="coder", technique=f"{coder}-error{budget:g}", device="cpu",
        workload=workload.name, data=data.title, simulated=False, error_budget=budget,
        sparsity=SPARSITY, target=rival, target_met=met, **asdict(file),
    )  # fmt: skip
    assert met is not False, f"{file.stored_bytes:,} bytes, nncodec's {rival:,}"


def _against_peers(
    own: tuple[float, ...], times: dict[str, tuple[float, ...]]
) -> tuple[str | None, SpeedUp]:
    """Return the fastest INT8 of the peers, and how many times faster than it `own` is."""
    int8 = [peer.name for peer in PEERS if "int8" in peer.name and peer.name in times]
    if not int8:
        return None, SpeedUp(1.0, 1.0, 1.0)
    rival = min(int8, key=lambda name: float(np.quantile(times[name], 0.25)))
    return rival, speed_up(Pairs(times[rival], own))
