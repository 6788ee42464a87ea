"""write_atomically: whole or not at all, under kill -9, a full disk and other writers."""

import errno
import fcntl
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Timer

import pytest

from compression.atomic import write_atomically
from compression.errors import CheckpointError
from tests.support.runs import printed_by

OLD, NEW = b"old" * 1000, b"new" * 2000
ORPHAN = ".model.0123456789abcdef.tmp"


@pytest.fixture
def target(tmp_path: Path) -> Path:
    path = tmp_path / "model"
    path.write_bytes(OLD)
    return path


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("data", [b"", b"x", NEW])
def test_writes_and_replaces(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "model[1]*?.safetensors"
    write_atomically(path, b"first")
    write_atomically(str(path), data)
    assert path.read_bytes() == data
    assert names(tmp_path) == [path.name]


def test_mode_follows_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_atomically(tmp_path / "model", NEW)
    finally:
        os.umask(before)
    assert (tmp_path / "model").stat().st_mode & 0o777 == 0o640


def test_follows_a_link(tmp_path: Path, target: Path) -> None:
    (tmp_path / "folder").mkdir()
    link = tmp_path / "folder" / "link"
    link.symlink_to(target)
    write_atomically(link, NEW)
    assert link.is_symlink()
    assert target.read_bytes() == NEW


KILLED_AT_EACH_LINE = """
import os, signal, sys
from pathlib import Path
from compression import atomic
folder = Path(sys.argv[1])
old, new, after = b"old" * 1000, b"new" * 2000, b"after"

def child(step):
    left = [step]
    def trace(frame, event, argument):
        if frame.f_code.co_filename != atomic.__file__:
            return None
        if event == "line":
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left[0] -= 1
        return trace
    sys.settrace(trace)
    atomic.write_atomically(folder / "model", new)
    os._exit(0)

step, seen, orphans = 0, set(), 0
while True:
    (folder / "model").write_bytes(old)
    pid = os.fork()
    if pid == 0:
        child(step)
    status = os.waitpid(pid, 0)[1]
    found = (folder / "model").read_bytes()
    assert found in (old, new), (step, found[:20])
    if status == 0:
        break
    assert os.WTERMSIG(status) == signal.SIGKILL
    seen.add(found[:3])
    orphans += len(list(folder.iterdir())) - 1
    atomic.write_atomically(folder / "model", after)
    assert [p.name for p in folder.iterdir()] == ["model"], step
    assert (folder / "model").read_bytes() == after
    step += 1
print(step, ",".join(sorted(s.decode() for s in seen)), orphans)
"""


def test_kill_at_each_line_leaves_the_old_file_or_the_new(tmp_path: Path) -> None:
    steps, seen, orphans = printed_by(KILLED_AT_EACH_LINE, tmp_path).split()
    assert int(steps) > 20
    assert seen == "new,old"  # killed on both sides of the rename
    assert int(orphans) > 3  # the sweep had something to sweep


FILE_SIZE_LIMITED = """
import resource, sys
from pathlib import Path
from compression.atomic import write_atomically
path = Path(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (4000, resource.RLIM_INFINITY))
try:
    write_atomically(path, b"new" * 2000)
except ValueError as error:
    print(type(error).__name__, error)
print(sorted(p.name for p in path.parent.iterdir()), path.read_bytes() == b"old" * 1000)
"""


def test_disk_full_half_way_leaves_the_old_file(target: Path) -> None:
    error, left = printed_by(FILE_SIZE_LIMITED, target).splitlines()
    assert error.startswith(f"CheckpointError {target}: not written, disk full")
    assert left == "['model'] True"


# Which call of the system fails, how, and what the message says of it.
FAILURES = [
    ("open", errno.EROFS, "not written, Read-only file system"),
    ("open", errno.EACCES, "not written, Permission denied"),
    ("fsync", errno.ENOSPC, "disk full"),
    ("fsync", errno.EDQUOT, "disk full"),
    ("fsync", errno.EIO, "not written, Input/output error"),
    ("replace", errno.EXDEV, "not written"),
]


@pytest.mark.parametrize(("call", "number", "message"), FAILURES)
def test_a_failing_call_leaves_the_old_file(
    target: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int, message: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        with pytest.raises(CheckpointError, match=message) as caught:
            write_atomically(target, NEW)
    assert str(caught.value).startswith(str(target))
    assert target.read_bytes() == OLD
    assert names(target.parent) == ["model"]


@pytest.mark.parametrize(("number", "raises"), [(errno.EIO, True), (errno.EINVAL, False)])
def test_a_folder_that_cannot_be_synced_is_not_called_unwritten(
    target: Path, monkeypatch: pytest.MonkeyPatch, number: int, raises: bool
) -> None:
    sync = os.fsync

    def fail(handle: int) -> None:
        if Path(f"/proc/self/fd/{handle}").resolve() == target.parent:
            raise OSError(number, os.strerror(number))
        sync(handle)

    monkeypatch.setattr(os, "fsync", fail)
    if raises:
        with pytest.raises(CheckpointError, match="written, but a power cut may"):
            write_atomically(target, NEW)
    else:
        write_atomically(target, NEW)
    assert target.read_bytes() == NEW


def test_interrupted_leaves_the_old_file(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(target, NEW)
    assert target.read_bytes() == OLD
    assert names(target.parent) == ["model"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing/model", "the folder .*missing does not exist; create it first"),
        ("model/model", "the folder .*model does not exist"),
        ("folder", "expected a file to write, found a folder"),
        ("pipe", "expected a file to write, found a device or pipe"),
        ("x" * 250, "not written, File name too long"),
        ("x" * 300, "not written, File name too long"),
    ],
)
def test_a_target_that_cannot_be_written(target: Path, name: str, message: str) -> None:
    folder = target.parent
    (folder / "folder").mkdir()
    os.mkfifo(folder / "pipe")
    before = names(folder)
    with pytest.raises(CheckpointError, match=message):
        write_atomically(folder / name, NEW)
    assert names(folder) == before
    assert (folder / "pipe").is_fifo()


def test_sweeps_orphans_of_this_target_only(target: Path) -> None:
    kept = [
        "other.safetensors",
        ".model.txt.0123456789abcdef.tmp",  # of the target model.txt
        ".model.123.tmp",
        ".model.0123456789abcdeg.tmp",
        "model.0123456789abcdef.tmp",
    ]
    for name in [ORPHAN, *kept]:
        (target.parent / name).touch()
    write_atomically(target, NEW)
    assert names(target.parent) == sorted(["model", *kept])


def test_spares_the_file_of_a_living_writer(target: Path) -> None:
    orphan = target.parent / ORPHAN
    with orphan.open("wb") as writer:
        fcntl.flock(writer, fcntl.LOCK_EX)
        write_atomically(target, NEW)
        assert names(target.parent) == sorted([ORPHAN, "model"])
    write_atomically(target, OLD)
    assert names(target.parent) == ["model"]


def test_a_new_file_that_a_sweeper_locked_first_is_made_anew(
    target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock, sync, sweepers = fcntl.flock, os.fsync, list[Timer]()

    def unlink(orphan: Path, handle: int) -> None:
        orphan.unlink()
        os.close(handle)

    def lock_second(handle: int, operation: int) -> None:
        for made in target.parent.glob(".model.*.tmp") if not sweepers else ():
            sweeper = os.open(made, os.O_RDONLY)
            lock(sweeper, fcntl.LOCK_EX)
            sweepers.append(Timer(0.1, unlink, (made, sweeper)))
            sweepers[0].start()
        lock(handle, operation)

    def sync_last(handle: int) -> None:
        sweepers[0].join()
        sync(handle)

    monkeypatch.setattr(fcntl, "flock", lock_second)
    monkeypatch.setattr(os, "fsync", sync_last)
    write_atomically(target, NEW)
    assert target.read_bytes() == NEW
    assert names(target.parent) == ["model"]


def test_concurrent_writers_leave_one_whole_file(target: Path) -> None:
    payloads = [bytes([i]) * 50_000 for i in range(24)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda data: write_atomically(target, data), payloads))
    assert target.read_bytes() in payloads
    assert names(target.parent) == ["model"]
