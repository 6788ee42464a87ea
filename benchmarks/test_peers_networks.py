"""Networks in INT8 by each engine: `pytest benchmarks/test_peers_networks.py -m peers`.

torchvision's and those of other tasks, with the same drawn weights and the same images. Each engine
has a process of its own; they are woken in turn. Outputs are compared with those in float64.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from benchmarks.baseline.data import Data, load_digits_224
from benchmarks.coverage.case import sqnr
from benchmarks.facts.record import record
from benchmarks.peers.competition import Competition
from benchmarks.peers.engines import BASELINE, BY_NAME, DEPLOYED, Engine
from benchmarks.peers.networks import NETWORKS, inputs, network
from benchmarks.peers.worker import in_rows
from benchmarks.timing.clock import CLOCK, replay
from benchmarks.timing.speed_up import Pairs, SpeedUp, latency_facts, speed_up
from compression.errors import CompressionError

CALIBRATION_IMAGES = 32
VALIDATION_IMAGES = 16
BUDGET_S = 30.0
RIVALS = tuple(BY_NAME[name] for name in ("openvino-int8-nncf", "onnxruntime-int8"))
ENGINES = (BASELINE, *RIVALS, DEPLOYED)
GOAL = 1.0
"""Of the time of OpenVINO's INT8. The table says where it is missed."""
NO_SLOWER_THAN_FLOAT = 1.0

pytestmark = [pytest.mark.peers, pytest.mark.benchmark(timer=CLOCK)]


@dataclass
class Contest:
    """One network, on every engine that makes an INT8 file of it; `refusals` says why not."""

    name: str
    competition: Competition
    images: Tensor
    refusals: dict[Engine, str]

    @cached_property
    def wanted(self) -> Tensor:
        """The outputs in float64."""
        with torch.inference_mode():
            return in_rows(network(self.name).double().eval()(self.images.double()))

    def sqnr_db(self, engine: Engine) -> float:
        """Return the signal to quantization noise of an engine's outputs."""
        return sqnr(self.competition.outputs(engine), self.wanted)


@pytest.fixture(scope="module")
def images() -> Data:
    """Return the digits at 224x224: real images of the networks' own size."""
    return load_digits_224()


@pytest.fixture(scope="module", params=NETWORKS)
def contest(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, images: Data
) -> Iterator[Contest]:
    """Yield a network, its files made."""
    name, folder = request.param, tmp_path_factory.mktemp(request.param)
    save_file(network(name).state_dict(), folder / "baseline.safetensors")
    validation = _write_images(name, images, folder / "images.safetensors")
    competition = Competition(
        f"benchmarks.peers.networks:{name}", folder, ENGINES, budget_s=BUDGET_S
    )
    refusals = {}
    for engine in list(competition.engines):
        try:
            competition.file_facts(engine)
        except CompressionError as error:
            if engine not in RIVALS:
                raise
            competition.engines.remove(engine)
            refusals[engine] = str(error)
    yield Contest(name, competition, validation, refusals)
    competition.close()


def _write_images(name: str, images: Data, path: Path) -> Tensor:
    calibration = inputs(name, images.train.inputs(slice(0, CALIBRATION_IMAGES)))
    validation = inputs(name, images.validation.inputs(slice(0, VALIDATION_IMAGES)))
    save_file({"calibration": calibration, "validation": validation}, path)
    return validation


@pytest.mark.parametrize("batch_size", [1, 16], ids="batch{}".format)
@pytest.mark.parametrize("engine", ENGINES, ids=str)
def test_int8_network(
    benchmark: Any, request: Any, contest: Contest, engine: Engine, batch_size: int
) -> None:
    if engine not in contest.competition.engines:
        pytest.skip(contest.refusals.get(engine, f"{engine} is not installed"))
    times = contest.competition.times(batch_size)
    own, ours = times[engine.name], engine is DEPLOYED
    against = _against(own, times) if ours else None
    replay(benchmark, own)
    facts = latency_facts(Pairs(times[BASELINE.name], own))
    facts |= contest.competition.ran(engine, batch_size)
    if against is not None:
        facts |= {"rival": RIVALS[0].name, "rival_ratio": against.value}
    record(
        benchmark, request, technique=f"{contest.name}-{engine}", device="cpu",
        workload="networks", data="digits at 224x224", simulated=False, timing="wall",
        batch_size=batch_size, sqnr_db=contest.sqnr_db(engine),
        target=None if against is None else GOAL,
        target_met=None if against is None else against.high >= GOAL, **facts,
    )  # fmt: skip
    assert not ours or facts["speed_up_high"] >= NO_SLOWER_THAN_FLOAT, "slower than in float32"


def _against(own: tuple[float, ...], times: dict[str, tuple[float, ...]]) -> SpeedUp | None:
    rival = times.get(RIVALS[0].name)
    return None if rival is None else speed_up(Pairs(rival, own))
