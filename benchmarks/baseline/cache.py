"""Files that a run keeps for the next: locked while they are made, checked when they are read."""

import errno
import glob
import hashlib
import io
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from safetensors.torch import save as to_bytes
from torch import Tensor

from benchmarks.baseline.lease import STALE_S, Lease
from compression.atomic import write_atomically
from compression.errors import CompressionError

log = logging.getLogger(__name__)

LOCK_TIMEOUT_S = 12 * 3600
RESUMABLE_S = 30 * 24 * 3600
"""For so long a training that was killed may go on."""
_MARK = b'"sha256":"'
_DIGITS = 64
_ZEROS = b"0" * _DIGITS
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


@contextmanager
def lock(
    path: Path,
    what: str = "baseline",
    done: str = "trained",
    *,
    report: Callable[[str], None] = log.info,
) -> Iterator[None]:
    """Hold the lock on `path` among all processes; CompressionError where that is impossible.

    Among those of this host by its kernel, which knows at once that a process has ended; among hosts by
    a lease beside it. `what` is kept there, and `done` is how it is made, for the message; `report`
    hears of another host that holds it, and of one that was lost.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with ExitStack() as held:
            alone = _lock_on_this_host(path, held)
            lease = Lease(lease_of(path), alone=alone, timeout_s=LOCK_TIMEOUT_S, report=report)
            held.enter_context(lease)
            yield
    except Timeout as error:
        raise CompressionError(
            f"{path}.lock: another process has {done} this {what} for over "
            f"{LOCK_TIMEOUT_S // 3600} hours; end it, or delete the lock file"
        ) from error
    except OSError as error:
        raise CompressionError(
            f"{path.parent}: the {what} cannot be cached ({error.strerror or error}); set "
            "XDG_CACHE_HOME to a folder that can be written"
        ) from error


def lease_of(path: Path) -> Path:
    """Return the file that says which host holds `path`."""
    return path.with_name(f"{path.name}.lease")


def _lock_on_this_host(path: Path, held: ExitStack) -> bool:
    """Hold the kernel's lock; False where it has none on this folder, as on some of a network."""
    try:
        held.enter_context(FileLock(f"{path}.lock", timeout=LOCK_TIMEOUT_S))
    except OSError as error:
        if isinstance(error, Timeout) or error.errno not in _NO_LOCKS:
            raise
        return False
    return True


def write_weights(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write a safetensors file whose metadata holds its SHA-256, computed with zeros in its place."""
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    data = to_bytes(plain, metadata={"sha256": _ZEROS.decode()})
    start = data.index(_MARK + _ZEROS) + len(_MARK)
    digest = hashlib.sha256(data).hexdigest().encode()
    write_atomically(path, data[:start] + digest + data[start + _DIGITS :])


def holds_weights(path: Path) -> bool:
    """Tell whether `path` is what `write_weights` wrote, bit for bit; a missing file is not."""
    data = _bytes_of(path)
    start = -1 if data is None else data.find(_MARK)
    if data is None or start < 0:
        return False
    start += len(_MARK)
    digest = hashlib.sha256(data[:start])
    digest.update(_ZEROS)
    digest.update(data[start + _DIGITS :])
    return digest.hexdigest().encode() == data[start : start + _DIGITS]


def write_checked(path: Path, data: bytes) -> None:
    """Write `data` after a line with its SHA-256."""
    write_atomically(path, hashlib.sha256(data).hexdigest().encode() + b"\n" + data)


def read_checked(path: Path) -> bytes | None:
    """Return what `write_checked` wrote, None where any bit has changed."""
    whole = _bytes_of(path) or b""
    line, data = whole[: _DIGITS + 1], whole[_DIGITS + 1 :]
    return data if line == hashlib.sha256(data).hexdigest().encode() + b"\n" else None


def write_state(path: Path, state: Mapping[str, Any]) -> None:
    """Write a dictionary of tensors and numbers, checked."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    write_checked(path, buffer.getvalue())


def read_state(path: Path) -> dict[str, Any] | None:
    """Return what `write_state` wrote, its tensors on the CPU; None where any bit has changed."""
    data = read_checked(path)
    if data is None:
        return None
    state: dict[str, Any] = torch.load(io.BytesIO(data), weights_only=True, map_location="cpu")
    return state


def evict(folder: Path, name: str, most_bytes: int, suffix: str = ".safetensors") -> None:
    """Delete the NAME-*`suffix` that were used longest ago, until the others fit `most_bytes`.

    What was used last says the time of modification. What stands beside one, its lock included, goes
    with it; one that is locked stays. So does what a killed training goes on from, for a month. An
    error is no reason to stop.
    """
    found = {kind: list[tuple[float, int, Path]]() for kind in (suffix, ".resume")}
    for path in folder.glob(f"{glob.escape(name)}-*"):
        with suppress(OSError):  # gone by now
            if path.suffix in found and path.stem.rpartition("-")[0] == name:
                found[path.suffix].append((path.stat().st_mtime, path.stat().st_size, path))
    for modified, _, path in found[".resume"]:
        if time.time() - modified > RESUMABLE_S:
            _delete(path)
    surplus = sum(size for _, size, _ in found[suffix]) - most_bytes
    for _, size, path in sorted(found[suffix]):
        if surplus > 0 and _delete(path, path.with_suffix(".json"), suffix=suffix):
            surplus -= size


def _delete(*paths: Path, suffix: str = ".safetensors") -> bool:
    """Delete the files of what is kept at one place, and its lock; tell whether that could be."""
    place = paths[0].with_suffix(suffix)
    held = f"{place}.lock"
    with suppress(OSError, Timeout), FileLock(held, timeout=0):
        if _is_leased(place):
            return False
        for path in (*paths, Path(held)):
            path.unlink(missing_ok=True)
        return True
    return False


def _is_leased(path: Path) -> bool:
    """Tell whether another host holds `path`; what it left an hour ago holds nothing."""
    with suppress(FileNotFoundError):
        return time.time() - lease_of(path).stat().st_mtime < 20 * STALE_S
    return False


def _bytes_of(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise CompressionError(
            f"{path}: the cached file cannot be read ({error.strerror or error}); delete it, or set "
            "XDG_CACHE_HOME to another folder"
        ) from error
