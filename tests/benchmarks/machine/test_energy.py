"""Energy by NVML, of a made-up card that draws a known power."""

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from benchmarks.facts.schema import check_fact
from benchmarks.machine.energy import energy_facts, measure_energy

CUDA = torch.device("cuda", 1)
UUID = "11111111-2222-3333-4444-555555555555"
POWER_W = 300.0
WORK_S = 0.001
TOLERANCES = {
    # Each end of the window is late by up to a portion of 10 ms in one second.
    "counter": (0.02, "the steps of the counter are seen a portion late"),
    "power": (1e-6, "a constant power, integrated exactly"),
}


class FakeNvml(ModuleType):
    """NVML's functions on a card whose clock moves only while it works."""

    class NVMLError(Exception):
        """What NVML's functions raise."""

    def __init__(self, *, counter: bool = True, power: bool = True, step_s: float = 0.1) -> None:
        super().__init__("pynvml")
        self.now_s, self.counter, self.power, self.step_s = 0.0, counter, power, step_s
        self.open, self.asked = 0, ""

    def nvmlInit(self) -> None:  # noqa: N802
        self.open += 1

    def nvmlShutdown(self) -> None:  # noqa: N802
        self.open -= 1

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:  # noqa: N802
        self.asked = uuid
        return uuid

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: str) -> int:  # noqa: N802
        if not self.counter:
            raise self.NVMLError("Not Supported")
        assert (handle, self.open) == (f"GPU-{UUID}", 1)
        return round(1000 * POWER_W * self.step_s * (self.now_s // self.step_s))

    def nvmlDeviceGetPowerUsage(self, handle: str) -> int:  # noqa: N802
        if not self.power:
            raise self.NVMLError("Insufficient Permissions")
        assert (handle, self.open) == (f"GPU-{UUID}", 1)
        # The average of the last second, in which the card was idle before it worked.
        return round(1000 * POWER_W * min(1.0, self.now_s))

    def work(self) -> None:
        self.now_s += WORK_S


def card(patch: pytest.MonkeyPatch, **abilities: Any) -> FakeNvml:
    nvml = FakeNvml(**abilities)
    patch.setitem(sys.modules, "pynvml", nvml)
    patch.setattr(torch.cuda, "synchronize", lambda _: None)
    found = SimpleNamespace(uuid=UUID)
    patch.setattr(torch.cuda, "get_device_properties", lambda d: found if d == CUDA else None)
    patch.setattr("time.perf_counter", lambda: nvml.now_s)
    return nvml


@pytest.mark.parametrize("source", ["counter", "power"])
def test_a_prediction_of_one_ms_at_300_w_takes_300_mj(
    source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    nvml = card(monkeypatch, counter=source == "counter")
    found = measure_energy(nvml.work, CUDA)
    assert found.source == source
    assert found.mj / found.predictions == pytest.approx(300, rel=TOLERANCES[source][0])
    assert 1.0 <= found.window_s < 1.3
    assert found.predictions == pytest.approx(found.window_s / WORK_S)
    assert nvml.asked == f"GPU-{UUID}"
    assert nvml.open == 0


def test_a_row_records_the_energy_of_a_prediction_and_of_an_image(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    facts = energy_facts(card(monkeypatch, counter=False).work, CUDA, images=128)
    assert facts["energy_mj"] == pytest.approx(300)
    assert facts["energy_mj_per_image"] == pytest.approx(300 / 128)
    assert facts["energy_source"] == "power"
    assert facts["energy_predictions"] == pytest.approx(1000, abs=10)
    for name, value in facts.items():
        check_fact(name, value)


@pytest.mark.parametrize(
    ("abilities", "reason"),
    [
        ({"counter": False, "power": False}, "NVML says: Insufficient Permissions"),
        ({"step_s": 1e9}, "the card's counter of energy stood still for 1 s"),
    ],
    ids=["rights", "still"],
)
def test_a_card_that_does_not_tell_gives_none_and_the_reason(
    abilities: dict[str, Any], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    nvml = card(monkeypatch, **abilities)
    facts = energy_facts(nvml.work, CUDA, images=1)
    assert facts == {"energy_mj": None, "energy_unknown": reason}
    for name, value in facts.items():
        check_fact(name, value)
    assert nvml.open == 0


def test_a_card_that_nvml_does_not_know_gives_none(monkeypatch: pytest.MonkeyPatch) -> None:
    nvml = card(monkeypatch)

    def unknown(_: str) -> str:
        raise nvml.NVMLError("Not Found")

    monkeypatch.setattr(nvml, "nvmlDeviceGetHandleByUUID", unknown)
    assert energy_facts(nvml.work, CUDA, images=1)["energy_unknown"] == "NVML says: Not Found"
    assert nvml.open == 0


def test_without_nvml_there_is_none_and_nothing_to_close(monkeypatch: pytest.MonkeyPatch) -> None:
    nvml = card(monkeypatch)

    def absent() -> None:
        raise nvml.NVMLError("NVML Shared Library Not Found")

    monkeypatch.setattr(nvml, "nvmlInit", absent)
    facts = energy_facts(nvml.work, CUDA, images=1)
    assert facts["energy_unknown"] == "NVML says: NVML Shared Library Not Found"
    assert nvml.open == 0


def test_without_the_package_the_reason_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    facts = energy_facts(lambda: None, CUDA, images=1)
    assert facts["energy_mj"] is None
    assert "nvidia-ml-py is not installed: add the extra gpu" in facts["energy_unknown"]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_draws_more_than_nothing_or_says_why_it_is_unknown() -> None:
    x = torch.randn(2048, 2048, device="cuda")
    facts = energy_facts(lambda: x @ x, x.device, images=1)
    if facts["energy_mj"] is None:
        pytest.skip(facts["energy_unknown"])
    power_w = facts["energy_mj"] * facts["energy_predictions"] / facts["energy_window_s"] / 1000
    assert 10 < power_w < 2000
