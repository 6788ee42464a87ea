import errno
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from compression.atomic import write_atomically
from compression.errors import CheckpointError
from tests.support.runs import run_program


def test_it_writes_and_replaces(tmp_path: Path) -> None:
    for data in (b"one", b"two"):
        write_atomically(tmp_path / "file", data)
        assert (tmp_path / "file").read_bytes() == data
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize(
    ("number", "reason"), [(errno.ENOSPC, "disk full"), (errno.EIO, "Input/output error")]
)
def test_a_failure_leaves_the_old_file_and_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int, reason: str
) -> None:
    write_atomically(tmp_path / "file", b"old")

    def fails(*_: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, call, fails)
    with pytest.raises(CheckpointError, match=f"file: not written, {reason}"):
        write_atomically(tmp_path / "file", b"new")
    assert (tmp_path / "file").read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_real_limit_on_the_file_size_leaves_the_old_file(tmp_path: Path) -> None:
    write_atomically(tmp_path / "file", b"old")
    code = f"""
import resource, signal
from compression.atomic import write_atomically  # before the limit, which would cut cached bytecode
from compression.errors import CheckpointError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    write_atomically({str(tmp_path / "file")!r}, b"x" * 5000)
except CheckpointError as error:
    print(error)
"""
    run = run_program(code)
    assert run.returncode == 0, run.stderr
    assert "disk full" in run.stdout
    assert (tmp_path / "file").read_bytes() == b"old"


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_kill_9_leaves_the_old_file_and_the_next_writer_sweeps(tmp_path: Path, step: str) -> None:
    write_atomically(tmp_path / "file", b"old")
    code = f"""
import os, signal
from compression.atomic import write_atomically
os.{step} = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
write_atomically({str(tmp_path / "file")!r}, b"new")
"""
    run = run_program(code)
    assert run.returncode == -signal.SIGKILL
    assert (tmp_path / "file").read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 2
    write_atomically(tmp_path / "file", b"new")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_living_writers_file_is_left_alone(tmp_path: Path) -> None:
    other = tmp_path / f".file.{os.getppid()}.abc"
    other.write_bytes(b"half")
    write_atomically(tmp_path / "file", b"new")
    assert other.exists()


def test_a_folder_or_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="found a folder"):
        write_atomically(tmp_path, b"")
    with pytest.raises(CheckpointError, match="does not exist"):
        write_atomically(tmp_path / "no" / "file", b"")
