"""A lease on a file among hosts that share a folder, whose locks may not reach beyond one host.

The holder creates a file that nobody else can create (O_EXCL, which NFS keeps to since version 3) and
renews its time of modification. Others take it over once it has not been renewed for long. Two may hold
one where they take over in the same instant, or where a holder slept for minutes: what it protects must
bear to be made twice, whole and by rename, and then nothing is lost but time.
"""

import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from compression.errors import CompressionError

RENEW_S = 15.0
STALE_S = 180.0
"""By the clock of the one who waits: two hosts' may differ. Longer than a folder's caches hide."""


class Lease:
    """Context that holds `path`; it waits for another holder, and takes over from one that was lost.

    `alone`: no other process of this host can hold it, so that what it has left is stale at once.
    CompressionError after `timeout_s` of waiting, or where a stale lease cannot be removed; OSError
    where none can be written.
    """

    def __init__(
        self, path: Path, *, alone: bool, timeout_s: float, report: Callable[[str], None]
    ) -> None:
        """Prepare; `report` hears whom it waits for, and whose lease it takes over."""
        self.path, self.alone, self.timeout_s, self.report = path, alone, timeout_s, report
        self._token = secrets.token_hex(8)
        self._ended = threading.Event()
        self._renewing = threading.Thread(target=self._renew, daemon=True)

    def __enter__(self) -> "Lease":
        """Wait until it is ours."""
        began = changed = time.monotonic()
        last: tuple[str, int] | None = None
        while not self._create():
            seen, now = _seen(self.path), time.monotonic()
            if seen is None:
                continue  # it has just been released
            if last is None:
                self.report(f"{self.path}: waiting for {_holder(seen[0])}")
            if seen != last:
                last, changed = seen, now
            left_here = self.alone and _told(seen[0]).get("boot") == _boot()
            if left_here or now - changed > STALE_S:
                self._take_away(seen[0])
                last = None
            elif now - began > self.timeout_s:
                raise CompressionError(
                    f"{self.path}: {_holder(seen[0])} has held it for over "
                    f"{self.timeout_s / 3600:.0f} hours; end it, or delete the file"
                )
            else:
                time.sleep(min(1.0, STALE_S / 10))
        self._renewing.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Release it, unless another has taken it over."""
        self._ended.set()
        self._renewing.join()
        with suppress(OSError):
            if self._is_ours():
                self.path.unlink()

    def _create(self) -> bool:
        told = {"host": socket.gethostname(), "pid": os.getpid(), "boot": _boot()}
        try:
            handle = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        except FileExistsError:
            return False
        with os.fdopen(handle, "w") as file:
            file.write(json.dumps({**told, "token": self._token}))
        return True

    def _renew(self) -> None:
        while not self._ended.wait(RENEW_S):
            with suppress(OSError):  # the folder's server is away: others cannot see it either
                if self._is_ours():
                    os.utime(self.path)

    def _is_ours(self) -> bool:
        seen = _seen(self.path)
        return seen is not None and _told(seen[0]).get("token") == self._token

    def _take_away(self, text: str) -> None:
        """Remove the lease that says `text`, and no other: one that came meanwhile is put back."""
        aside = self.path.with_name(f"{self.path.name}.{self._token}")
        try:
            self.path.rename(aside)
            found = aside.read_text()
            if found == text:
                self.report(f"{self.path}: {_holder(text)} was lost and is not waited for")
            else:
                with suppress(FileExistsError):
                    os.link(aside, self.path)
            aside.unlink()
        except FileNotFoundError:  # released, or taken away by another
            return
        except OSError as error:
            raise CompressionError(
                f"{self.path}: a stale lease of {_holder(text)} cannot be removed "
                f"({error.strerror}); delete the file"
            ) from error


def _seen(path: Path) -> tuple[str, int] | None:
    """Return what a lease says and when it was renewed, None where there is none."""
    try:
        return path.read_text(errors="replace"), path.stat().st_mtime_ns
    except FileNotFoundError:
        return None


def _told(text: str) -> dict[str, object]:
    try:
        told = json.loads(text)
    except ValueError:  # its holder was killed before it wrote
        return {}
    return told if isinstance(told, dict) else {}


def _holder(text: str) -> str:
    told = _told(text)
    return f"process {told.get('pid', 'unknown')} on host {told.get('host', 'unknown')}"


def _boot() -> str:
    """Return what tells this run of this kernel, whose locks its containers share, from all others."""
    path = Path("/proc/sys/kernel/random/boot_id")
    return path.read_text().strip() if path.exists() else socket.gethostname()
