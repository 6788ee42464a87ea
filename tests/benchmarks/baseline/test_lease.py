"""A lease holds among hosts, goes with its holder, and is taken over from one that was lost."""

import errno
import json
import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from benchmarks.baseline import cache as files
from benchmarks.baseline import lease as leases
from benchmarks.baseline.cache import evict, lease_of, lock, write_weights
from benchmarks.baseline.lease import Lease
from compression.errors import CompressionError
from tests.support.nets import residual
from tests.support.runs import run_at_once

ELSEWHERE = json.dumps({"host": "far", "pid": 7, "boot": "another", "token": "0"})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "net.safetensors.lease"


def hold(path: Path, lines: list[str] | None = None, **options: Any) -> Lease:
    chosen = {"alone": False, "timeout_s": 30.0, **options}
    return Lease(path, report=(lines if lines is not None else []).append, **chosen)


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "RENEW_S", 0.02)
    monkeypatch.setattr(leases, "STALE_S", 0.3)


def test_a_lease_names_its_holder_and_goes_with_it(path: Path) -> None:
    with hold(path):
        assert json.loads(path.read_text())["pid"] == os.getpid()
    assert not path.exists()


@pytest.mark.usefixtures("fast")
def test_a_lease_that_is_renewed_is_waited_for(path: Path) -> None:
    order, lines = list[str](), list[str]()
    held = hold(path)
    held.__enter__()

    def wait() -> None:
        with hold(path, lines):
            order.append("second")

    thread = threading.Thread(target=wait)
    thread.start()
    time.sleep(1.0)  # three times as long as a stale one is waited for
    order.append("first")
    held.__exit__(None, None, None)
    thread.join()
    assert order == ["first", "second"]
    assert len(lines) == 1
    assert f"waiting for process {os.getpid()} on host " in lines[0]


@pytest.mark.usefixtures("fast")
@pytest.mark.parametrize("text", [ELSEWHERE, "", '{"pid"', "[1]"])
def test_a_lost_holder_is_said_and_not_waited_for(path: Path, text: str) -> None:
    path.write_text(text)
    lines: list[str] = []
    with hold(path, lines):
        assert json.loads(path.read_text())["pid"] == os.getpid()
    assert lines[-1].endswith("was lost and is not waited for")
    assert ("process 7 on host far" in lines[-1]) == (text == ELSEWHERE)
    assert not list(path.parent.iterdir())


def test_what_this_host_left_is_stale_at_once_where_its_locks_hold(path: Path) -> None:
    path.write_text(json.dumps({"host": "here", "pid": 7, "boot": leases._boot()}))
    with hold(path, alone=True, timeout_s=0.0):
        pass
    path.write_text(json.dumps({"host": "here", "pid": 7, "boot": leases._boot()}))
    with pytest.raises(CompressionError, match="process 7 on host here has held it for over 0"):
        hold(path, alone=False, timeout_s=0.0).__enter__()


@pytest.mark.usefixtures("fast")
def test_a_stale_lease_that_cannot_be_removed_is_one_sentence(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> Path:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    path.write_text(ELSEWHERE)
    monkeypatch.setattr(Path, "rename", refused)
    with pytest.raises(
        CompressionError,
        match=r"a stale lease of process 7 on host far cannot be removed \(Permission denied\); delete",
    ):
        hold(path).__enter__()


def test_a_lease_that_came_meanwhile_is_put_back(path: Path) -> None:
    path.write_text(ELSEWHERE)
    hold(path)._take_away("what was there before")
    assert path.read_text() == ELSEWHERE


def test_one_that_was_taken_over_is_left_to_its_new_holder(path: Path) -> None:
    with hold(path):
        path.unlink()
        path.write_text(ELSEWHERE)
    assert path.read_text() == ELSEWHERE


@pytest.mark.parametrize("kind", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_folder_without_locks_has_leases(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: int
) -> None:
    def no_locks(*_: object, **__: object) -> Any:
        raise OSError(kind, os.strerror(kind))

    monkeypatch.setattr(files, "FileLock", no_locks)
    with lock(tmp_path / "net"):
        assert lease_of(tmp_path / "net").exists()
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = os.open

    def refused(path: Any, *options: int) -> int:
        if str(path).endswith(".lease"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return opened(path, *options)

    monkeypatch.setattr(os, "open", refused)
    with (
        pytest.raises(CompressionError, match=r"cannot be cached \(Permission denied\); set XDG"),
        lock(tmp_path / "net"),
    ):
        pass


def test_what_another_host_holds_is_not_evicted(tmp_path: Path) -> None:
    path = tmp_path / "net-1.safetensors"
    write_weights(path, residual().state_dict())
    lease_of(path).write_text(ELSEWHERE)
    evict(tmp_path, "net", 0)
    assert path.exists()
    os.utime(lease_of(path), (0, 0))
    evict(tmp_path, "net", 0)
    assert not path.exists()


AT_ONCE = """
import sys, time
from pathlib import Path
import benchmarks.baseline.lease as leases
leases.STALE_S = 0.5
log = open(sys.argv[2], "a")
for _ in range(10):
    with leases.Lease(Path(sys.argv[1]), alone=False, timeout_s=60, report=lambda _: None):
        print("in", file=log, flush=True)
        time.sleep(0.001)
        print("out", file=log, flush=True)
"""


def test_of_processes_at_once_one_is_within(path: Path) -> None:
    log = path.with_name("log")
    ends = run_at_once(AT_ONCE, path, log, count=3)
    assert [end.returncode for end in ends] == [0, 0, 0], [end.stderr for end in ends]
    assert log.read_text().split() == ["in", "out"] * 30
