"""A CPU has a name wherever the suite runs: times of two CPUs are not compared."""

from pathlib import Path

import pytest
import torch

from benchmarks.machine import device
from compression.integer.native.instructions import CHOICE

CPU = torch.device("cpu")


class NoFile:
    """A machine that has no /proc/cpuinfo, as macOS."""

    def __init__(self, path: str) -> None:
        self.path = path

    def exists(self) -> bool:
        return False


def test_a_cpu_that_linux_gives_no_name_has_that_of_its_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Linux lists an ARM core's part number alone; py-cpuinfo knows what it stands for."""
    monkeypatch.delenv(CHOICE, raising=False)
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nFeatures\t: fp asimd asimddp\n")
    for path in (lambda _: tmp_path / "cpuinfo", NoFile):
        monkeypatch.setattr(device, "Path", path)
        monkeypatch.setattr(device, "get_cpu_info", lambda: {"brand_raw": "Neoverse-N1"})
        assert device.device_name(CPU) == "Neoverse-N1"
        monkeypatch.setattr(device, "get_cpu_info", dict)
        assert device.device_name(CPU)


def test_kernels_of_fewer_instructions_are_another_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(CHOICE, raising=False)
    name = device.device_name(CPU)
    monkeypatch.setenv(CHOICE, "avx2")
    assert device.device_name(CPU) == f"{name} held to avx2"
