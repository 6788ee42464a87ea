"""Session fixtures: the trained baseline on each device, and each technique's file, made once."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from benchmarks import verifier
from benchmarks.artifact import Artifact, compress
from benchmarks.baseline import (
    Baseline,
    Data,
    check_outputs,
    fitted,
    obtain_baseline,
    trainable_workload,
    weights_fingerprint,
)
from benchmarks.ending import print_changes, print_choice, print_table, shows_all
from benchmarks.facts.record import Facts, facts_of, finished_tests
from benchmarks.gate.plugin import SUITE
from benchmarks.options import (
    WORKLOAD,
    asks_for_times,
    devices,
    place_of,
    training_kind,
)
from benchmarks.parameters import parametrize
from benchmarks.session import end_on_error, line_printer, minutes, suite_facts
from benchmarks.techniques import BY_NAME, TECHNIQUES, Technique
from benchmarks.workloads import Workload, read_data
from compression.errors import CompressionError
from compression.storage import load_checkpoint
from compression.training import TOP_1

ArtifactOf = Callable[[Technique, torch.device], Artifact]
EvaluationOf = Callable[[Technique, torch.device], dict[str, Any]]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Parametrize what asks for a technique by its name, the argument `case`."""
    if "case" in metafunc.fixturenames:
        parametrize(metafunc)


@pytest.fixture
def technique(case: str) -> Technique:
    """Return the technique that a test's id names."""
    return BY_NAME[case]


@pytest.fixture
def device(place: str) -> torch.device:
    """Return the device; among several GPUs the worker's number chooses."""
    chosen = place_of(place)
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)  # events, graphs and streams are the current device's
    return chosen


@pytest.fixture(scope="session")
def workload(request: pytest.FixtureRequest, data: Data) -> Workload:
    """Return what --workload names, built to fit its images."""
    with end_on_error(request.session):
        return fitted(request.config.stash[WORKLOAD], data)


@pytest.fixture(scope="session")
def of_classes(workload: Workload) -> None:
    """Skip what compares choices of classes where the workload is judged by another metric."""
    if workload.metric != TOP_1:
        pytest.skip(
            f"classes are compared, and {workload.name} is judged by {workload.metric.name}"
        )


@pytest.fixture(scope="session")
def data(request: pytest.FixtureRequest) -> Data:
    """Load the workload's images; a user's mistake ends the run with one sentence."""
    workload, root = request.config.stash[WORKLOAD], request.config.getoption("--data-root")
    with end_on_error(request.session), minutes(request.config, "reading the images").watched():
        return read_data(workload, root)


@pytest.fixture(scope="session")
def read_network(
    request: pytest.FixtureRequest, workload: Workload, data: Data
) -> Callable[[], tuple[nn.Module, str]]:
    """Return a function that reads the baseline's network and names its recipe by a fingerprint.

    It is trained by the first call, unless a checkpoint is given; each call returns a new copy.
    """
    trainer = place_of(training_kind(devices(request.config)))
    checkpoint = request.config.getoption("--baseline")
    report = line_printer(request.config)

    @cache
    def chosen() -> Workload:
        check_outputs(workload, data)
        return workload if checkpoint else trainable_workload(workload, data, trainer, report)

    def read() -> tuple[nn.Module, str]:
        if checkpoint is not None:
            return load_checkpoint(checkpoint, chosen().network), "--baseline"
        model = obtain_baseline(chosen(), data, trainer, load=load_checkpoint, report=report)
        return model, chosen().recipe_fingerprint(trainer)

    return read


@pytest.fixture(scope="session")
def baseline_on(
    request: pytest.FixtureRequest,
    workload: Workload,
    data: Data,
    read_network: Callable[[], tuple[nn.Module, str]],
) -> Callable[[torch.device], Baseline]:
    """Return a function that gives the baseline on a device: one network, trained once, for all."""

    @cache
    def get(device: torch.device) -> Baseline:
        with end_on_error(request.session):
            model, recipe = read_network()
        request.config.stash[SUITE].update(
            suite_facts(request.config, workload, data),
            recipe_fingerprint=recipe,
            baseline_fingerprint=weights_fingerprint(model),
        )
        return Baseline(model.to(device), data.to(device), workload, device)

    return get


@pytest.fixture(scope="session")
def artifact_of(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    baseline_on: Callable[[torch.device], Baseline],
) -> ArtifactOf:
    """Return a function that compresses the baseline by a technique, once per session and device."""
    folder = tmp_path_factory.mktemp("models")

    @cache
    def attempt(technique: Technique, device: torch.device) -> Artifact | Exception:
        baseline, path = baseline_on(device), folder / f"{device.type}-{technique}.safetensors"
        try:
            step = minutes(request.config, f"{technique}, compression")
            with step.watched():
                return compress(technique, replace(baseline, note=step.note), path)
        except Exception as error:  # kept: each of its tests would train again
            return error

    def get(technique: Technique, device: torch.device) -> Artifact:
        outcome = attempt(technique, device)
        if isinstance(outcome, CompressionError):  # of the user's network: the sentence is enough
            pytest.fail(f"{technique}: {outcome}", pytrace=False)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    return get


@pytest.fixture(scope="session")
def baseline_model_on(artifact_of: ArtifactOf) -> Callable[[torch.device], nn.Module]:
    """Return a function that gives the model of the baseline's file on a device, loaded once."""
    return cache(lambda device: artifact_of(TECHNIQUES[0], device).load(device))


@pytest.fixture(scope="session")
def evaluation_of(
    request: pytest.FixtureRequest, artifact_of: ArtifactOf
) -> Iterator[EvaluationOf]:
    """Return a function that has a technique's file loaded and evaluated by another process."""
    name, root = (request.config.getoption(f"--{o}") for o in ("workload", "data-root"))
    places = [place_of(kind) for kind in devices(request.config)]
    # Started now, to be ready when the first technique is compressed.
    processes = {place: verifier.start(name, root, place) for place in places}

    @cache
    def get(technique: Technique, device: torch.device) -> dict[str, Any]:
        artifact = artifact_of(technique, device)
        try:
            with minutes(request.config, f"{technique}, accuracy").watched():
                answer = processes[device].ask(path=str(artifact.path), student=technique.student)
        except CompressionError as error:
            if not processes[device].is_alive:  # killed, for want of memory say: the next needs one
                processes[device].close()
                processes[device] = verifier.start(name, root, device)
            pytest.fail(f"{technique}: {error}", pytrace=False)
        assert answer["fingerprint"] == artifact.fingerprint, (
            "the file is not the model, bit for bit"
        )
        return answer

    yield get
    for process in processes.values():
        process.close()


@pytest.hookimpl(tryfirst=True)
def pytest_benchmark_group_stats(config: pytest.Config, benchmarks: list[Any]) -> list[Any] | None:
    """Leave pytest-benchmark no group to print where our table shows all, unless it is asked for."""
    gathered = config._benchmarksession.disabled  # type: ignore[attr-defined]
    asked = asks_for_times(config) and not gathered  # by a worker, one round each
    return [] if shows_all(benchmarks) and not asked else None


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Print what the run measured, and write the figures where they are asked for."""
    order = {name: i for i, name in enumerate(BY_NAME)}
    facts = sorted(
        facts_of(finished_tests(terminalreporter)), key=lambda fact: order.get(fact["technique"], 0)
    )
    if not facts:
        return
    print_table(terminalreporter, facts, config)
    print_changes(terminalreporter, facts, config)
    print_choice(terminalreporter, facts, config)
    folder = config.getoption("--figures")
    if folder is not None:
        _write_figures(terminalreporter, facts, folder)


def _write_figures(terminalreporter: Any, facts: list[Facts], folder: Path) -> None:
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
