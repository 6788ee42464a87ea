"""Write a file whole or not at all."""

import contextlib
import errno
import fcntl
import os
import re
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from compression.errors import CheckpointError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def write_atomically(path: Path | str, data: bytes | Callable[[BinaryIO], object]) -> None:
    """Write `data` to `path` so that a crash or a full disk leaves the old file or none.

    `data` is bytes, or a function that writes them to the open file that it is given. A temporary
    file in the same folder is written, synced and renamed over the target (POSIX rename(2) is
    atomic), then the folder is synced; a link is followed. Leftovers of writers killed at the same
    target are swept. Raises CheckpointError that names the file and the reason.
    """
    target = writable(path)
    try:
        _sweep(target)
        _replace(target, data)
    except OSError as error:
        reason = f"disk full ({error.strerror})" if error.errno in _FULL else error.strerror
        raise CheckpointError(f"{path}: not written, {reason}; what was there is intact") from error
    try:
        _sync_folder(target.parent)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a file system that cannot sync folders
            raise CheckpointError(
                f"{path}: written, but a power cut may still undo it: its folder was not synced, "
                f"{error.strerror}"
            ) from error


def writable(path: Path | str) -> Path:
    """Return the file that writing to `path` makes or replaces; CheckpointError where none can be.

    Ask before the work of making what is to be written. A folder that refuses the file says so later.
    """
    if not isinstance(path, str | Path):
        raise CheckpointError(
            f"expected the path of a file (str or pathlib.Path), found {type(path).__name__}"
        )
    try:
        target = Path(os.path.realpath(path))
        if target.exists() and not target.is_file():
            kind = "a folder" if target.is_dir() else "a device or pipe"
            raise CheckpointError(f"{path}: expected a file to write, found {kind}")
        if not target.parent.is_dir():
            raise CheckpointError(
                f"{path}: the folder {target.parent} does not exist; create it first"
            )
    except CheckpointError:
        raise
    except (OSError, ValueError) as error:  # a name too long, a null byte
        reason = error.strerror if isinstance(error, OSError) else error
        raise CheckpointError(f"{path}: not written, {reason}") from error
    return target


def _replace(target: Path, data: bytes | Callable[[BinaryIO], object]) -> None:
    handle, temporary = _create(target)
    try:
        with os.fdopen(handle, "wb") as file:
            data(file) if callable(data) else file.write(data)
            file.flush()
            os.fsync(handle)
            # While the file is open, and so locked: no other writer sweeps it.
            os.replace(temporary, target)  # noqa: PTH105 - the atomic call by its own name
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def _create(target: Path) -> tuple[int, Path]:
    """Return an open temporary file beside `target` whose lock says that its writer lives.

    The kernel drops the lock with the process, kill -9 included; a process id in the name could
    belong to another process by now, or to another container.
    """
    while True:
        temporary = target.with_name(f".{target.name}.{secrets.token_hex(8)}.tmp")
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        with contextlib.suppress(OSError):  # a file system without locks: nothing is swept there
            # Waits for a sweeper that got hold of the new file first, and is about to unlink it.
            fcntl.flock(handle, fcntl.LOCK_EX)
        if os.fstat(handle).st_nlink:
            return handle, temporary
        os.close(handle)  # swept by another writer before it was locked


def _sweep(target: Path) -> None:
    ours = re.compile(rf"\.{re.escape(target.name)}\.[0-9a-f]{{16}}\.tmp")
    with contextlib.suppress(OSError):  # sweeping is a courtesy: it never stops the write
        for orphan in [p for p in target.parent.iterdir() if ours.fullmatch(p.name)]:
            handle = os.open(orphan, os.O_RDONLY | os.O_NOFOLLOW)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                orphan.unlink()
            except OSError:  # its writer lives
                continue
            finally:
                os.close(handle)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
