"""Workers of xdist on several hosts, or in several folders: checked, numbered, given the run's words.

Each host has the project's folder, and its Python what `pip install -e '.[test]'` brings. xdist would
copy pytest there, and refuses relative paths; neither happens to what comes by PYTEST_ADDOPTS.
"""

import copy
import dataclasses
import os
import shlex
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

NUMBER, COUNT = "COMPRESSION_WORKER", "COMPRESSION_WORKERS"
"""Variables of a worker: its number on its host, which one in its place takes over; how many."""
_ANSWER_S = 15
_CHECK = "cd {folder} && test -f conftest.py || exit 3; command -v {python} > /dev/null || exit 4"


def prepare_workers(config: pytest.Config, specs: list[Any]) -> None:
    """Number the workers of each host and check that each host can run them; UsageError where not."""
    hosts = Counter(map(host_of, specs))
    numbers = Counter[str]()
    for spec in specs:
        host = host_of(spec)
        spec.env |= {NUMBER: str(numbers[host]), COUNT: str(hosts[host])}
        numbers[host] += 1
    if not any(map(_is_elsewhere, specs)):
        return
    checked = {(host_of(s), s.chdir, s.python): s for s in specs if _is_elsewhere(s)}
    for spec in checked.values():
        if reason := _refusal(spec):
            raise pytest.UsageError(f"--tx {spec}: {reason}")
    _require_equal_threads(config)
    _pass_arguments(config, specs)
    manager = config.pluginmanager.getplugin("dsession").nodemanager
    manager.roots = []  # nothing is copied
    manager.setup_node = _Replacing(manager, manager.setup_node)


def host_of(spec: Any) -> str:
    """Return the host of an execnet specification, empty for this one."""
    return str(spec.ssh or spec.vagrant_ssh or spec.socket or spec.via or "")


def worker_number() -> int:
    """Return this worker's number among those of its host, 0 without xdist."""
    name = os.environ.get(NUMBER) or os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")
    return int(name)


def worker_count() -> int:
    """Return how many workers share this host's cores."""
    return int(os.environ.get(COUNT) or os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))


def _is_elsewhere(spec: Any) -> bool:
    return not spec.popen or bool(spec.chdir or spec.python or spec.via)


def _refusal(spec: Any) -> str:
    """Return why a host cannot run workers; empty where it can, or where only xdist can ask it."""
    if spec.via or not (spec.popen or spec.ssh):
        return ""
    python = shlex.split(spec.python or ("python" if spec.ssh else sys.executable))[0]
    check = _CHECK.format(folder=shlex.quote(spec.chdir or "."), python=shlex.quote(python))
    settings = ["-F", spec.ssh_config] if spec.ssh_config else []
    ssh = ["ssh", "-o", "BatchMode=yes", "-o", f"ConnectTimeout={_ANSWER_S}", *settings]
    command = [*ssh, *shlex.split(spec.ssh), check] if spec.ssh else ["sh", "-c", check]
    try:
        run = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=4 * _ANSWER_S
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"the host cannot be reached ({error})"
    if run.returncode == 3:
        return f"no conftest.py in {spec.chdir}; name the project's folder there by //chdir=FOLDER"
    if run.returncode == 4:
        return f"no {python} there; name the Python that has the project by //python=PATH"
    said = (run.stderr.strip().splitlines() or [f"exit status {run.returncode}"])[-1]
    return f"the host cannot be reached ({said})" if run.returncode else ""


def _require_equal_threads(config: pytest.Config) -> None:
    given = config.getoption("--num-threads") or config.getoption("--baseline")
    if not given and "cuda" not in (config.getoption("--device") or ()):
        raise pytest.UsageError(
            "--tx: add --num-threads N: on a CPU another number of threads trains another baseline, "
            "and hosts may have different numbers of cores"
        )


def _pass_arguments(config: pytest.Config, specs: list[Any]) -> None:
    """Give all workers this run's arguments by a variable, with paths as they are in the project."""
    given = [_in_project(argument, config.rootpath) for argument in config.invocation_params.args]
    before = os.environ.get("PYTEST_ADDOPTS", "")
    # Here too, where benchmarks.gate.scope asks for what the command line gave.
    os.environ["PYTEST_ADDOPTS"] = f"{before} {shlex.join(given)}".strip()
    config.invocation_params = dataclasses.replace(config.invocation_params, args=())
    shared = {name: os.environ[name] for name in ("XDG_CACHE_HOME",) if name in os.environ}
    for spec in specs:
        spec.env = {**shared, **spec.env, "PYTEST_ADDOPTS": os.environ["PYTEST_ADDOPTS"]}


def _in_project(argument: object, root: Path) -> str:
    path, colons, test = str(argument).partition("::")
    inside = Path(path).is_absolute() and Path(path).is_relative_to(root)
    return (str(Path(path).relative_to(root)) if inside else path) + colons + test


class _Replacing:
    """Makes xdist's workers; in the place of one whose host was lost, one on another host."""

    def __init__(self, manager: Any, make: Callable[..., Any]) -> None:
        self.manager, self.make, self.made = manager, make, 0

    def __call__(self, spec: Any, putevent: Any) -> Any:
        """Return a worker; UsageError where its host gives none in the beginning."""
        try:
            node = self.make(spec, putevent)
        except Exception as error:  # of execnet and of the network, of many kinds
            reason = f"{type(error).__name__}: {error}"
        else:
            self.made += 1
            return node
        if self.made < len(self.manager.specs):
            raise pytest.UsageError(f"--tx {spec}: no worker can be started there ({reason})")
        for other in self.manager.specs:
            if host_of(other) == host_of(spec) and other.chdir == spec.chdir:
                continue
            again = copy.copy(other)
            again.id = None
            self.manager.group.allocate_id(again)
            try:
                return self.make(again, putevent)
            except Exception:  # it was lost as well
                continue
        pytest.exit(f"all hosts were lost, the last as {spec} ({reason})", returncode=1)
