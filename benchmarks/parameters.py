"""The parameters of the benchmarks: a test's id is device, technique, batch size and timing."""

from collections.abc import Iterable, Iterator
from typing import Any

import pytest

from benchmarks.options import WORKLOAD, devices
from benchmarks.techniques import BY_NAME, SWEEP, TECHNIQUES, Technique
from benchmarks.workloads import Workload

TIMINGS = {"cpu": ("wall",), "cuda": ("wall", "event", "graph")}


def parametrize(metafunc: pytest.Metafunc) -> None:
    """Give a test each device and technique; batch sizes and timings too where it asks for them.

    The parameters are strings and numbers, fit for the JSON; `case` is a technique's name.
    """
    config = metafunc.config
    marker = metafunc.definition.get_closest_marker("with_sweep")
    pairs = [
        (device, technique)
        for device in devices(config)
        for technique in measured(config.stash[WORKLOAD], device, marker.args[0] if marker else ())
    ]
    if "batch_size" not in metafunc.fixturenames:
        metafunc.parametrize("place, case", [_parameter(*pair) for pair in pairs])
        return
    workload = config.stash[WORKLOAD]
    batches = {"cpu": workload.batch_sizes, "cuda": workload.cuda_batch_sizes}
    rows = [
        _parameter(device, technique, batch, timing)
        for device, technique in pairs
        for batch in batches[device]
        for timing in TIMINGS[device]
    ]
    metafunc.parametrize("place, case, batch_size, timing", rows)


def measured(
    workload: Workload, device: str, points: Iterable[Technique] = ()
) -> Iterator[Technique]:
    """Yield the techniques, and of the sweep's points those, that are measured of a workload."""
    unknown = set(workload.rows) - BY_NAME.keys()
    if unknown:
        known = "benchmarks/techniques.py"
        pytest.fail(
            f"workload {workload.name}: expected rows of {known}, found {', '.join(sorted(unknown))}",
            pytrace=False,
        )
    for technique in (*TECHNIQUES, *points):
        asked = not workload.rows or technique.name in workload.rows
        if asked and device in technique.claims and workload.name not in technique.left_out_on:
            yield technique


def _parameter(
    device: str, technique: Technique, batch: int | None = None, timing: str = "wall"
) -> Any:
    marks = []
    if technique in SWEEP:
        marks.append(pytest.mark.sweep)
    if device == "cuda":
        marks.append(pytest.mark.gpu)
    name = f"{device}-{technique}"
    if batch is None:
        return pytest.param(device, technique.name, id=name, marks=marks)
    name += f"-batch{batch}" + ("" if timing == "wall" else f"-{timing}")
    return pytest.param(device, technique.name, batch, timing, id=name, marks=marks)
