"""Training on a GPU by the clock: `pytest benchmarks/test_training.py -m training --device cuda`."""

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch

from benchmarks.baseline import Data, keep_baseline, with_start
from benchmarks.facts.record import record
from benchmarks.gpu_training import TRAININGS, time_training
from benchmarks.options import devices, place_of
from benchmarks.timing.clock import CLOCK, replay
from benchmarks.workloads import Workload
from compression.errors import CompressionError

pytestmark = [
    pytest.mark.training,
    pytest.mark.gpu,
    pytest.mark.benchmark(timer=CLOCK),
    pytest.mark.filterwarnings("default"),  # a compiler's warning fails no training
]


@pytest.fixture(scope="module")
def card(request: pytest.FixtureRequest) -> torch.device:
    """Return the GPU to train on."""
    if "cuda" not in devices(request.config):
        pytest.skip("trains on a GPU: pass --device cuda")
    return place_of("cuda")


@pytest.fixture(scope="module")
def images(request: pytest.FixtureRequest) -> Callable[[Workload], Data]:
    """Return a function that loads a workload's images, whatever --workload names."""
    root = request.config.getoption("--data-root")

    @cache
    def load(loader: Any) -> Data:
        try:
            return loader(root)  # type: ignore[no-any-return]
        except CompressionError as error:
            pytest.exit(str(error), returncode=pytest.ExitCode.USAGE_ERROR)

    return lambda workload: load(workload.data)


@pytest.mark.parametrize("name", TRAININGS)
def test_training(
    benchmark: Any,
    request: pytest.FixtureRequest,
    card: torch.device,
    images: Callable[[Workload], Data],
    name: str,
) -> None:
    row = TRAININGS[name]
    data = images(row.workload)
    workload = with_start(row.workload, card)
    if (workload.pretrained is None) != (row.workload.pretrained is None):
        pytest.skip("its pretrained weights are not available")
    model, outcome = time_training(workload, data, card, print)
    if row.recipe is None:  # a run looks for no other recipe's weights
        keep_baseline(model, workload, data, card)
    replay(benchmark, [outcome["seconds"]])
    met = outcome["seconds"] <= row.seconds and outcome["accuracy"] >= row.accuracy
    record(
        benchmark, request, metric="training", technique=f"training-{name}", device=card.type,
        workload=workload.name, data=data.title, simulated=False, target_met=met,
        target={"seconds": row.seconds, "accuracy": row.accuracy}, **outcome,
    )  # fmt: skip
    assert outcome["seconds"] <= row.seconds
    assert outcome["accuracy"] >= row.accuracy
