"""Write a file whole or not at all."""

import errno
import os
import tempfile
from pathlib import Path

from compression.errors import CheckpointError


def write_atomically(path: Path | str, data: bytes) -> None:
    """Write `data` to `path` so that a crash or a full disk leaves the old file or none.

    A temporary file in the same folder is written, synced and renamed over the target (POSIX
    rename(2) is atomic), then the folder is synced. Leftovers of writers killed at the same target
    are swept. Raises CheckpointError that names the file and the reason.
    """
    path = Path(path)
    if path.is_dir():
        raise CheckpointError(f"{path}: expected a file to write, found a folder")
    if not path.parent.is_dir():
        raise CheckpointError(f"{path}: the folder {path.parent} does not exist; create it first")
    _sweep(path)
    temporary: str | None = None
    try:
        handle, temporary = tempfile.mkstemp(prefix=_prefix(path), dir=path.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)  # noqa: PTH105 - the atomic call by its own name
        temporary = None
        _sync_folder(path.parent)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        reason = "disk full" if full else error.strerror
        raise CheckpointError(f"{path}: not written, {reason}; what was there is intact") from error
    finally:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)


def _prefix(path: Path) -> str:
    # The writer's process id tells a living writer's file from an orphan.
    return f".{path.name}.{os.getpid()}."


def _sweep(path: Path) -> None:
    for orphan in path.parent.glob(f".{_glob_escape(path.name)}.*.*"):
        pid = orphan.name.removeprefix(f".{path.name}.").partition(".")[0]
        if pid.isdigit() and not _alive(int(pid)):
            orphan.unlink(missing_ok=True)


def _glob_escape(name: str) -> str:
    """Escape the characters that pathlib's glob reads as a pattern."""
    return "".join(f"[{c}]" if c in "*?[" else c for c in name)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
