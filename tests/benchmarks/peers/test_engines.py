"""A peer's file holds what its row claims, and predicts what the network does."""

from pathlib import Path

import pytest
import torch

from benchmarks.peers.competition import missing
from benchmarks.peers.engines import BY_NAME, Engine, Setting
from tests.support.executor_rows import put
from tests.support.nets import images, residual

pytestmark = pytest.mark.filterwarnings("ignore")  # torchao's and torch.export's own
CLOSE = 0.05


@pytest.fixture
def torchao() -> Engine:
    engine = BY_NAME["torchao-int8"]
    reason = missing(engine)
    if reason:
        pytest.skip(reason)
    return engine


@pytest.fixture
def path(torchao: Engine, tmp_path: Path) -> Path:
    with torch.no_grad():
        torchao.build(residual(), images(), tmp_path / "model.pt2")
    return tmp_path / "model.pt2"


def test_torchao_stores_no_float_weight(path: Path) -> None:
    program = torch.export.load(path)
    weights = [v for v in program.state_dict.values() if v.dim() > 1]
    assert len(weights) == 3
    assert {v.dtype for v in weights} == {torch.int8}
    inputs = images(5, seed=1)
    wanted = residual()(inputs)
    assert (program.module()(inputs) - wanted).abs().max() <= CLOSE * wanted.abs().max()


@pytest.mark.slow
def test_torchao_compiles_for_any_batch(path: Path, torchao: Engine) -> None:
    predict = torchao.start(path, Setting(images(), residual))
    with torch.inference_mode():
        for inputs in (
            images(5, seed=1),
            images(1),
            images().to(memory_format=torch.channels_last),
        ):
            wanted = residual()(inputs)
            assert (predict(inputs) - wanted).abs().max() <= CLOSE * wanted.abs().max()


def test_an_engine_without_its_program_says_so() -> None:
    absent = Engine("made-up", ".x", lambda *_: None, lambda *_: residual(), (), ("no-such-c++",))
    assert missing(absent) == "made-up needs the program no-such-c++"


def test_a_row_is_measured_on_its_own_executor_or_not_at_all(monkeypatch, tmp_path: Path) -> None:
    def wrong(*_):
        return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 4))

    put(monkeypatch, "native", lower=wrong)
    engine, path = BY_NAME["compression-int8-native"], tmp_path / "model.safetensors"
    engine.build(residual(), images(), path)
    with torch.no_grad(), pytest.raises(RuntimeWarning, match="executor native disagrees with the"):
        engine.start(path, Setting(images(), residual))
