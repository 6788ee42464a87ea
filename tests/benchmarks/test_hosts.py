"""A run over several folders and hosts: one table, one JSON, and what is lost runs again."""

import json
import os
import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks.gate.history import read_history
from benchmarks.gathered import Gatherer
from benchmarks.hosts import COUNT, NUMBER, prepare_workers, worker_count, worker_number
from tests.support.places import ROOT
from tests.support.runs import run_pytest

TINY = ("-p", "no:cacheprovider", "--workload", "tests.support.workloads:TINY")
SSH = """#!/bin/sh
while [ "${1#-}" != "$1" ]; do
  case "$1" in -C) shift;; *) shift; shift;; esac
done
if [ "$1" = lost ]; then
  echo "ssh: Could not resolve hostname lost: Name or service not known" >&2; exit 255
fi
shift
exec env -u PYTHONPATH -u XDG_CACHE_HOME sh -c "$*"
"""
"""Stands for ssh: its hosts are this one, with another environment."""


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    """Return two folders of the project, as on two hosts, and an `ssh` that leads to them."""
    made = [tmp_path / name for name in ("a", "b")]
    for folder in made:
        folder.mkdir()
        for name in ("conftest.py", "pyproject.toml", "benchmarks", "compression", "tests"):
            (folder / name).symlink_to(ROOT / name)
    (tmp_path / "ssh").write_text(SSH)
    (tmp_path / "ssh").chmod(0o755)
    return made


def run(tmp_path: Path, *options: str) -> Any:
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    cache = {"XDG_CACHE_HOME": str(tmp_path / "cache"), "PATH": path}
    (tmp_path / "cache").mkdir(exist_ok=True)
    return run_pytest(*TINY, *options, PYTHONPATH=str(tmp_path), **cache)


LOSING = """
import os
import pytest

@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call(item):
    folder = os.environ["XDG_CACHE_HOME"]
    if item.name == "test_accuracy[cpu-float16]" and "PYTEST_XDIST_WORKER" in os.environ:
        before = [name for name in os.listdir(folder) if name.startswith("lost-")]
        if len(before) < OFTEN:
            open(f"{folder}/lost-{os.getpid()}", "w").close()
            os._exit(9)
"""


def test_hosts_give_one_table_and_one_json_and_a_lost_workers_case_runs_again(
    tmp_path: Path, folders: list[Path]
) -> None:
    (tmp_path / "losing.py").write_text(LOSING.replace("OFTEN", "1"))
    (folders[1] / "losing.py").symlink_to(tmp_path / "losing.py")
    done = run(
        tmp_path,
        str(ROOT / "benchmarks"),
        *("-k", "(accuracy or latency or size) and (baseline or float16)", "-p", "losing"),
        *("--tx", f"popen//chdir={folders[0]}"),
        *("--tx", f"ssh=-p 22 far//chdir={folders[1]}//python={sys.executable}"),
        f"--benchmark-json={tmp_path / 'run.json'}",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    entries = read_history(tmp_path / "run.json").entries
    rows = ("baseline", "float16")
    for test in ("accuracy", "size"):
        for row in rows:
            assert f"benchmarks/test_{test}.py::test_{test}[cpu-{row}]" in entries
    for row in rows:
        assert re.search(rf"^{row} +\d", done.stdout, re.MULTILINE), done.stdout
    lost = re.findall(
        r"^lost: worker '(gw\d)' crashed while running '(.*)': it runs", done.stdout, re.M
    )
    assert [test for _, test in lost] == ["benchmarks/test_accuracy.py::test_accuracy[cpu-float16]"]
    assert "1 rerun" in done.stdout
    assert "failed" not in done.stdout
    assert re.search(r"^no latency: \d+ rows need a quiet machine; .* -n 0", done.stdout, re.M)
    suite = json.loads((tmp_path / "run.json").read_text())["machine_info"]["suite"]
    assert suite["workload"] == "tiny"
    assert len(suite["baseline_fingerprint"]) == 16
    trained = list(
        (tmp_path / "cache" / "dnn-compression-suite" / "baselines").glob("*.safetensors")
    )
    assert len(trained) == 1, "the hosts share the cache"


def test_a_case_that_takes_two_workers_down_fails_and_the_others_go_on(tmp_path: Path) -> None:
    (tmp_path / "losing.py").write_text(LOSING.replace("OFTEN", "2"))
    chosen = ["-k", "baseline or cpu-float16", "-p", "losing", "-n", "1"]
    done = run(tmp_path, "benchmarks/test_accuracy.py", *chosen)
    assert done.returncode == pytest.ExitCode.TESTS_FAILED, done.stdout + done.stderr
    alone = "run it alone by pytest 'benchmarks/test_accuracy.py::test_accuracy[cpu-float16]' -n 0"
    assert alone in done.stdout
    assert "1 rerun" in done.stdout
    assert re.search(r"1 failed, \d passed", done.stdout)


REFUSED = {
    "ssh=lost//chdir=/srv//python=python3": (
        r"the host cannot be reached \(ssh: Could not resolve hostname lost: Name or service"
    ),
    "ssh=far//python=python3": "the host cannot be reached|no conftest.py in pyexecnetcache; name",
    "popen//chdir={empty}": "no conftest.py in .*empty; name the project's folder there by //chdir=",
    "popen//python=/no/such/python": "no /no/such/python there; name the Python",
}


@pytest.mark.parametrize("spec", REFUSED)
def test_a_host_that_cannot_run_workers_is_one_sentence(
    spec: str, tmp_path: Path, folders: list[Path]
) -> None:
    (tmp_path / "empty").mkdir()
    tx = spec.replace("{empty}", str(tmp_path / "empty"))
    done = run(tmp_path, "benchmarks/test_size.py", "--tx", tx)
    assert done.returncode == pytest.ExitCode.USAGE_ERROR, done.stdout + done.stderr
    lines = [line for line in done.stderr.splitlines() if line]
    assert len(lines) == 1, done.stderr
    assert re.match(rf"ERROR: --tx .*: ({REFUSED[spec]})", lines[0]), lines[0]
    assert "Traceback" not in done.stdout


def spec_of(**known: Any) -> Any:
    empty = dict.fromkeys(("ssh", "vagrant_ssh", "socket", "via", "chdir", "python", "popen"))
    return SimpleNamespace(**{**empty, "env": {}, **known})


def test_workers_are_numbered_on_each_host(monkeypatch: pytest.MonkeyPatch) -> None:
    specs = [spec_of(popen=True) for _ in range(3)]
    prepare_workers(SimpleNamespace(), specs)
    assert [spec.env[NUMBER] for spec in specs] == ["0", "1", "2"]
    assert {spec.env[COUNT] for spec in specs} == {"3"}
    monkeypatch.setenv("PYTEST_XDIST_WORKER", "gw9")  # in the place of the second, which was lost
    monkeypatch.setenv(NUMBER, "1")
    monkeypatch.setenv(COUNT, "3")
    assert (worker_number(), worker_count()) == (1, 3)
    monkeypatch.delenv(NUMBER)
    assert worker_number() == 9


def test_rows_of_several_baselines_fail_the_run() -> None:
    gatherer = Gatherer(SimpleNamespace())
    gatherer.suites = {"gw0": {"baseline_fingerprint": "a"}, "gw1": {"baseline_fingerprint": "a"}}
    assert gatherer.differing() == ""
    gatherer.suites["gw2"] = {"baseline_fingerprint": "b"}
    assert "several baselines (baseline_fingerprint: gw1 a, gw2 b): give all hosts one XDG" in (
        gatherer.differing()
    )
    session = SimpleNamespace(exitstatus=pytest.ExitCode.OK)
    gatherer.pytest_sessionfinish(session)
    assert session.exitstatus == pytest.ExitCode.TESTS_FAILED
