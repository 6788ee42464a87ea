"""Energy of a prediction on a GPU, by NVML: the card as a whole, idle power not subtracted."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from compression.errors import CompressionError

Work = Callable[[], object]

WINDOW_S = 1.0
PORTION_S = 0.01
"""Of work between two readings: NVML changes no faster than this."""
AVERAGE_S = 1.0
"""Over which cards newer than the A100 average their power (NVML, nvmlDeviceGetPowerUsage)."""
STEP_S = 1.0
"""Ten times what a card takes to move its counter (20 to 100 ms, Yang et al., arXiv:2312.02741)."""


class EnergyUnknownError(CompressionError):
    """A card whose energy cannot be read."""


@dataclass(frozen=True, slots=True)
class Energy:
    """Millijoules that the card drew in `window_s`, in which `predictions` were made."""

    mj: float
    predictions: int
    window_s: float
    source: str


def energy_facts(work: Work, device: torch.device, *, images: int) -> dict[str, Any]:
    """Return what a row records: mJ per prediction and per image, or None and why it is unknown."""
    try:
        energy = measure_energy(work, device)
    except EnergyUnknownError as error:
        return {"energy_mj": None, "energy_unknown": str(error)}
    return {
        "energy_mj": energy.mj / energy.predictions,
        "energy_mj_per_image": energy.mj / energy.predictions / images,
        "energy_source": energy.source,
        "energy_window_s": energy.window_s,
        "energy_predictions": energy.predictions,
    }


def measure_energy(work: Work, device: torch.device) -> Energy:
    """Repeat `work` for about a second, and return what NVML says of it.

    By the card's counter of energy, or else by its power, sampled and integrated. EnergyUnknownError
    where NVML or its package is missing, or knows neither.
    """
    try:
        import pynvml
    except ImportError as error:
        raise EnergyUnknownError("nvidia-ml-py is not installed: add the extra gpu") from error
    try:
        pynvml.nvmlInit()
        try:
            return _measure(pynvml, _handle(pynvml, device), _portions(work, device))
        finally:
            pynvml.nvmlShutdown()
    except pynvml.NVMLError as error:
        raise EnergyUnknownError(f"NVML says: {error}") from error


def _handle(pynvml: Any, device: torch.device) -> Any:
    """Find the card by its UUID: NVML counts all cards, torch those of CUDA_VISIBLE_DEVICES."""
    uuid = torch.cuda.get_device_properties(device).uuid
    return pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}")


def _portions(work: Work, device: torch.device) -> Callable[[], int]:
    """Return a function that works for about PORTION_S, until the device is done, and counts."""

    def run(count: int) -> int:
        for _ in range(count):
            work()
        torch.cuda.synchronize(device)
        return count

    run(1)
    started = time.perf_counter()
    run(1)
    count = math.ceil(PORTION_S / max(time.perf_counter() - started, 1e-6))
    return lambda: run(count)


def _measure(pynvml: Any, handle: Any, portion: Callable[[], int]) -> Energy:
    def counter_mj() -> int:
        return int(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle))

    def power_mw() -> int:
        return int(pynvml.nvmlDeviceGetPowerUsage(handle))

    try:
        counter_mj()
    except pynvml.NVMLError:  # older than Volta, or not permitted to this user
        return _by_power(power_mw, portion)
    return _by_counter(counter_mj, portion)


def _by_counter(read_mj: Callable[[], int], portion: Callable[[], int]) -> Energy:
    """Measure from one step of the counter to another: between steps its value is old."""
    first_mj, _ = _until_step(read_mj, portion)
    started, predictions = time.perf_counter(), 0
    while time.perf_counter() - started < WINDOW_S:
        predictions += portion()
    last_mj, more = _until_step(read_mj, portion)
    window_s = time.perf_counter() - started
    return Energy(last_mj - first_mj, predictions + more, window_s, "counter")


def _until_step(read_mj: Callable[[], int], portion: Callable[[], int]) -> tuple[int, int]:
    before_mj, predictions, started = read_mj(), 0, time.perf_counter()
    while (now_mj := read_mj()) == before_mj:
        if time.perf_counter() - started > STEP_S:
            raise EnergyUnknownError(f"the card's counter of energy stood still for {STEP_S:g} s")
        predictions += portion()
    return now_mj, predictions


def _by_power(read_mw: Callable[[], int], portion: Callable[[], int]) -> Energy:
    """Integrate samples of the power, once the time that the card averages over is all work."""
    started = time.perf_counter()
    while time.perf_counter() - started < AVERAGE_S:
        portion()
    times_s, power_mw, predictions = [time.perf_counter()], [read_mw()], 0
    while times_s[-1] - times_s[0] < WINDOW_S:
        predictions += portion()
        times_s.append(time.perf_counter())
        power_mw.append(read_mw())
    return Energy(
        float(np.trapezoid(power_mw, times_s)), predictions, times_s[-1] - times_s[0], "power"
    )
