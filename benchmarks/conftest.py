"""Session fixtures: the trained baseline on each device, and each case compressed once."""

import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import pytest
import torch
from torch import nn

from benchmarks import verifier
from benchmarks.artifact import Compressed, compress
from benchmarks.baseline import (
    Baseline,
    Data,
    check_outputs,
    trainable,
    trained_baseline,
    weights_fingerprint,
)
from benchmarks.facts.record import facts_of
from benchmarks.gate.plugin import SUITE
from benchmarks.options import WORKLOAD, device_names, devices, place_of, training_kind
from benchmarks.report.rows import rows
from benchmarks.report.table import render
from benchmarks.techniques import BY_NAME, CASES, SWEEP, Case
from benchmarks.workloads import Workload
from compression.errors import CompressionError
from compression.storage import load_checkpoint

TIMINGS = {"cpu": ("wall",), "cuda": ("wall", "event", "graph")}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Parametrize by device and case; by batch size and timing too where a test asks for them."""
    if "case" not in metafunc.fixturenames:
        return
    config = metafunc.config
    sweeps = metafunc.definition.get_closest_marker("with_sweep") is not None
    cases = [
        (device, case)
        for device in devices(config)
        for case in (*CASES, *(SWEEP if sweeps else ()))
        if device in case.devices
    ]
    if "batch_size" not in metafunc.fixturenames:
        metafunc.parametrize("place, case", [_parameter(*c) for c in cases])
        return
    workload = config.stash[WORKLOAD]
    batches = {"cpu": workload.batch_sizes, "cuda": workload.cuda_batch_sizes}
    rows = [
        _parameter(device, case, batch, timing)
        for device, case in cases
        for batch in batches[device]
        for timing in TIMINGS[device]
    ]
    metafunc.parametrize("place, case, batch_size, timing", rows)


def _parameter(device: str, case: Case, batch: int | None = None, timing: str = "wall") -> Any:
    marks = [pytest.mark.xdist_group(f"{device}-{case}")]
    if case in SWEEP:
        marks.append(pytest.mark.sweep)
    if device == "cuda":
        marks.append(pytest.mark.gpu)
    name = f"{device}-{case}"
    if batch is None:
        return pytest.param(device, case.name, id=name, marks=marks)
    name += f"-batch{batch}" + ("" if timing == "wall" else f"-{timing}")
    return pytest.param(device, case.name, batch, timing, id=name, marks=marks)


@pytest.fixture
def technique(case: str) -> Case:
    """Return the case that a test's id names; its parameters are strings, fit for the JSON."""
    return BY_NAME[case]


@pytest.fixture
def device(place: str) -> torch.device:
    """Return the device; among several GPUs the worker's number chooses."""
    chosen = place_of(place)
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)  # events, graphs and streams are the current device's
    return chosen


@pytest.fixture(scope="session")
def workload(request: pytest.FixtureRequest) -> Workload:
    """Return what --workload names."""
    return request.config.stash[WORKLOAD]


@pytest.fixture(scope="session")
def data(request: pytest.FixtureRequest, workload: Workload) -> Data:
    """Load the workload's images; a user's mistake ends the run with one sentence."""
    with _ending(request.session):
        images = workload.data(request.config.getoption("--data-root"))
        if not isinstance(images, Data):
            raise CompressionError(
                f"workload {workload.name}: its data must return a benchmarks.workloads.Data, found "
                f"{type(images).__name__}"
            )
        return images


@pytest.fixture(scope="session")
def baseline_on(
    request: pytest.FixtureRequest, workload: Workload, data: Data
) -> Callable[[torch.device], Baseline]:
    """Return a function that gives the baseline on a device: one network, trained once, for all."""
    kinds = devices(request.config)
    trainer = place_of(training_kind(kinds))
    checkpoint = request.config.getoption("--baseline")
    reporter = request.config.pluginmanager.getplugin("terminalreporter")
    capture = request.config.pluginmanager.getplugin("capturemanager")

    def report(line: str) -> None:
        if reporter is not None:
            with capture.global_and_fixture_disabled():
                reporter.ensure_newline()
                reporter.write_line(line)

    @cache
    def usable() -> Workload:
        check_outputs(workload, data)
        return workload if checkpoint else trainable(workload, data, trainer, report)

    @cache
    def get(device: torch.device) -> Baseline:
        with _ending(request.session):
            chosen = usable()
            if checkpoint is not None:
                recipe, model = "--baseline", load_checkpoint(checkpoint, workload.network)
            else:
                recipe = chosen.recipe_fingerprint(trainer)
                model = trained_baseline(chosen, data, trainer, load=load_checkpoint, report=report)
        request.config.stash[SUITE].update(
            workload=workload.name,
            data=data.title,
            device_name=device_names(kinds),
            num_threads=torch.get_num_threads(),
            torch=torch.__version__,
            dataset_fingerprint=data.fingerprint(),
            recipe_fingerprint=recipe,
            baseline_fingerprint=weights_fingerprint(model),
            seed=workload.recipe_on(trainer).seed,
        )
        return Baseline(model.to(device), data.to(device), workload, device)

    return get


@contextmanager
def _ending(session: pytest.Session) -> Iterator[None]:
    """End the run with one sentence where what every test needs cannot be had."""
    try:
        yield
        return
    except CompressionError as error:
        reason = str(error)
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        reason = f"{type(error).__name__}: {error} ({last.filename}:{last.lineno})"
    if hasattr(session.config, "workerinput"):  # where xdist takes an exit for a crash
        session.shouldstop = reason
        pytest.fail(reason, pytrace=False)
    pytest.exit(reason, returncode=pytest.ExitCode.USAGE_ERROR)  # once, and not in every test


Compress = Callable[[Case, torch.device], Compressed]
Verify = Callable[[Case, torch.device], dict[str, Any]]


@pytest.fixture(scope="session")
def compressed(
    tmp_path_factory: pytest.TempPathFactory, baseline_on: Callable[[torch.device], Baseline]
) -> Compress:
    """Return a function that compresses the baseline by a case, once a session and device."""
    folder = tmp_path_factory.mktemp("models")

    @cache
    def made(case: Case, device: torch.device) -> Compressed | Exception:
        baseline = baseline_on(device)
        try:
            return compress(case, baseline, folder / f"{device.type}-{case}.safetensors")
        except Exception as error:  # kept: each of its tests would train again
            return error

    def get(case: Case, device: torch.device) -> Compressed:
        found = made(case, device)
        if isinstance(found, CompressionError):  # of the user's network: the sentence is enough
            pytest.fail(f"{case}: {found}", pytrace=False)
        if isinstance(found, Exception):
            raise found
        return found

    return get


@pytest.fixture(scope="session")
def stored_baseline(compressed: Compress) -> Callable[[torch.device], nn.Module]:
    """Return a function that gives the model of the baseline's file on a device, loaded once."""
    return cache(lambda device: compressed(CASES[0], device).load(device))


@pytest.fixture(scope="session")
def verified(request: pytest.FixtureRequest, compressed: Compress) -> Iterator[Verify]:
    """Return a function that has a case's file loaded and evaluated by another process."""
    name, root = (request.config.getoption(f"--{o}") for o in ("workload", "data-root"))
    places = [place_of(kind) for kind in devices(request.config)]
    # Now, so that it is ready when the first case is compressed.
    processes = {place: verifier.start(name, root, place) for place in places}

    @cache
    def get(case: Case, device: torch.device) -> dict[str, Any]:
        subject = compressed(case, device)
        try:
            found = processes[device].ask(path=str(subject.path), student=case.student)
        except CompressionError as error:
            if not processes[device].is_alive:  # killed, for want of memory say: the next needs one
                processes[device].close()
                processes[device] = verifier.start(name, root, device)
            pytest.fail(f"{case}: {error}", pytrace=False)
        assert found["fingerprint"] == subject.fingerprint, "the file is not the model, bit for bit"
        return found

    yield get
    for process in processes.values():
        process.close()


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Print the table, and write the figures where they are asked for."""
    reports = [r for kind in ("passed", "failed") for r in terminalreporter.stats.get(kind, ())]
    order = {name: i for i, name in enumerate(BY_NAME)}
    facts = sorted(facts_of(reports), key=lambda fact: order.get(fact["technique"], 0))
    if not facts:
        return
    terminalreporter.section(f"compression: {facts[0]['workload']} ({facts[0]['data']})", sep="=")
    for line in render(rows(facts)).splitlines():
        terminalreporter.line(line)
    folder = config.getoption("--figures")
    if folder is not None:
        from benchmarks.report.figures import write_figures  # matplotlib costs half a second

        try:
            written, missing = write_figures(facts, folder)
        except CompressionError as error:
            terminalreporter.line(f"no figure: {error}", red=True)
            return
        for path in written:
            terminalreporter.line(f"figure: {path}")
        for reason in missing:
            terminalreporter.line(f"no figure: {reason}", yellow=True)
