"""Options, devices and threads of every run; the plugins of the suite."""

import os
import sys

if sys.version_info >= (3, 14):
    raise SystemExit(
        "Python 3.11 to 3.13 is needed: from 3.14 the standard library has a package `compression` "
        "(PEP 784), which this project's would shadow"
    )

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import torch

from benchmarks.baseline.folders import check_root
from benchmarks.hosts import worker_count
from benchmarks.machine.cuda_flags import describe_cuda
from benchmarks.options import BUDGET, WORKLOAD, batch_sizes, devices
from benchmarks.report.budget import RULE, Limit, parse_budget
from benchmarks.report.folder import make_folder
from benchmarks.report.quality import ACCURACY, Quality
from benchmarks.workloads import DIGITS, DIGITS_QUICK, FOLDER, resolve, with_options
from compression.errors import CompressionError
from compression.training import TOP_1

pytest_plugins = [
    "pytester",
    "benchmarks.gate.plugin",
    "benchmarks.report.plugin",
    "benchmarks.gathered",
]

hypothesis.settings.register_profile("suite", deadline=None, max_examples=60, derandomize=True)
# Drawn networks have five times the examples here (tests/support/drawn.py).
hypothesis.settings.register_profile("ci", parent=hypothesis.settings.get_profile("suite"))
hypothesis.settings.register_profile("nightly", deadline=None, max_examples=4000)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "suite"))


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the suite's own options."""
    group = parser.getgroup("compression")
    group.addoption("--workload", default="digits", metavar="NAME|package.module:attribute")
    group.addoption(
        "--quick",
        action="store_true",
        help=f"--workload {DIGITS_QUICK.name}: a small network, few rows and rounds, about a minute",
    )
    group.addoption(
        "--device", action="append", choices=["cpu", "cuda"], help="may be given twice; default cpu"
    )
    group.addoption(
        "--data-root",
        type=Path,
        help="images in train/CLASS and test/CLASS, and val/CLASS if you have it; of CIFAR-10 also in "
        "torchvision's layout",
    )
    group.addoption(
        "--network",
        metavar="torchvision:NAME|timm:NAME",
        help=f"of --workload {FOLDER.name}; default torchvision:resnet18",
    )
    group.addoption(
        "--size",
        metavar="N|HEIGHTxWIDTH",
        help=f"pixels that the images of --workload {FOLDER.name} are resized to; N is a square from "
        "their middle",
    )
    group.addoption("--baseline", type=Path, metavar="CHECKPOINT", help="instead of training one")
    group.addoption(
        "--num-threads",
        type=int,
        help="torch's threads; default: cores / workers. On a CPU another number trains another "
        "baseline, and all rows of it anew: sums depend on it",
    )
    group.addoption(
        "--budget",
        metavar="PARTS",
        help='print the best row within e.g. "file=3MiB latency=2ms drop=1pt", latency@64=20ms, '
        f"accuracy=90%%, each optional: {RULE}",
    )
    group.addoption("--figures", type=Path, metavar="DIR", help="write figures 2, 6 and Pareto")


# Before xdist's own hook, which would choose --dist=load: one worker compresses a technique once.
@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Keep the tests of one technique, and of one file, on one worker."""
    spread = config.getoption("numprocesses", None) or config.getoption("tx", None)
    if spread and config.getoption("dist") == "no" and not hasattr(config, "workerinput"):
        config.option.dist = "loadgroup"
        config.option.loadscopereorder = False


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Return what gives tests to workers by group."""
    if config.getoption("dist") != "loadgroup":
        return None
    from benchmarks.workers import GroupScheduling  # here: a run without xdist needs none of it

    return GroupScheduling(config, log)


def pytest_configure(config: pytest.Config) -> None:
    """Check the options before anything long begins."""
    _set_threads(config)
    if "cuda" in devices(config) and not torch.cuda.is_available():
        raise pytest.UsageError("--device cuda: this machine has no CUDA device that torch can use")
    checkpoint = config.getoption("--baseline")
    if checkpoint is not None and not checkpoint.is_file():
        found = "expected a file, found a folder" if checkpoint.is_dir() else "no such file"
        raise pytest.UsageError(f"--baseline {checkpoint}: {found}")
    with _refused():
        name = _workload_name(config)
    with _refused("--workload: "):
        config.stash[WORKLOAD] = workload = resolve(name, config.invocation_params.dir)
    with _refused():
        check_root(workload.data, config.getoption("--data-root"))
    with _refused("--budget: "):
        config.stash[BUDGET] = _budget(config)
    figures = config.getoption("--figures")
    if figures is not None:
        with _refused():  # now, not after hours of measuring
            make_folder(figures, "--figures")


@contextmanager
def _refused(option: str = "") -> Iterator[None]:
    """Make a mistake on the command line a usage error."""
    try:
        yield
    except CompressionError as error:
        raise pytest.UsageError(f"{option}{error}") from error


def _set_threads(config: pytest.Config) -> None:
    """Share the cores among the workers, which time nothing."""
    if "PYTEST_XDIST_WORKER" in os.environ or config.getoption("dist", "no") != "no":
        config.option.benchmark_disable = True  # or the plugin says so below the last line
    threads = config.getoption("--num-threads")
    if threads is not None and threads < 1:
        raise pytest.UsageError(f"--num-threads must be at least 1, found {threads}")
    torch.set_num_threads(threads or max(1, (os.cpu_count() or 1) // worker_count()))


def _workload_name(config: pytest.Config) -> str:
    """Return what --workload names, or --quick in its place."""
    name: str = config.getoption("--workload")
    asked = {o: config.getoption(f"--{o}") for o in ("network", "size")}
    if any(asked.values()):
        # In the name, for other processes: they are told no more.
        name = config.option.workload = with_options(name, **asked)
    if config.getoption("--quick"):
        if name not in (DIGITS.name, DIGITS_QUICK.name):
            raise pytest.UsageError(
                f"--quick is --workload {DIGITS_QUICK.name}, found --workload {name} besides: drop one "
                "of them"
            )
        name = config.option.workload = DIGITS_QUICK.name
    return name


def _budget(config: pytest.Config) -> tuple[Limit, ...]:
    """Return the limits of --budget, none without it."""
    text, batches = config.getoption("--budget"), batch_sizes(config)
    metric = config.stash[WORKLOAD].metric
    own = Quality(metric.name, metric.unit, metric.higher_is_better)
    budget = () if text is None else parse_budget(text, ACCURACY if metric == TOP_1 else own)
    for limit in budget:
        if limit.batch not in {None, *batches}:
            raise CompressionError(
                f"{limit.given}: expected a batch of {' or '.join(map(str, batches))}, which "
                f"{config.stash[WORKLOAD].name} is timed at, found {limit.batch}"
            )
    return budget


def pytest_report_header(config: pytest.Config) -> str:
    """Say what the numbers depend on."""
    asked = [f"cuda ({describe_cuda()})" if d == "cuda" else d for d in devices(config)]
    return (
        f"compression: workload {config.stash[WORKLOAD].name}, "
        f"device {', '.join(asked)}, "
        f"{torch.get_num_threads()} threads, torch {torch.__version__}"
    )
