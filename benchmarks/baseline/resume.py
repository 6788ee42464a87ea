"""The file from which a killed training goes on."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.baseline.cache import read_state, write_state
from benchmarks.baseline.processes import is_first
from compression.errors import CheckpointError
from compression.training import EpochReport

RESUME_EVERY_S = 20.0
"""Of training that a kill may cost, and at most one epoch more."""


class Keeper:
    """Writes the file that a training goes on from, once enough seconds would be lost."""

    def __init__(self, path: Path | None, title: str, report: Callable[[str], None]) -> None:
        """Write to `path`, if any; `report` hears once that it cannot be written."""
        self.path, self.title, self.report = path, title, report
        self.unsaved_s, self.unwritable = 0.0, False

    def keep(self, epoch: EpochReport) -> None:
        """Count an epoch, and write it where it is due; report once where it cannot be written.

        Of several processes the first writes.
        """
        self.unsaved_s += epoch.seconds
        if self.path is None or self.unsaved_s <= RESUME_EVERY_S:
            return
        state = epoch.state()  # in every process: that of a sharded network comes together
        reason = _write_resume(self.path, state) if is_first() else ""
        if reason and not self.unwritable:
            self.report(
                f"{self.title}: {reason}; training goes on, and a kill would cost all of it"
            )
        self.unsaved_s, self.unwritable = 0.0, self.unwritable or bool(reason)


def read_resume(path: Path, report: Callable[[str], None]) -> dict[str, Any] | None:
    """Return what `fit(resume_from=...)` takes; None without a file, or with a damaged one."""
    if not path.exists():
        return None
    state = read_state(path)
    if state is None:
        report(f"{path}: damaged, its checksum is not that of its bytes; training from the start")
        return None
    report(f"training goes on after epoch {state['epoch'] + 1} ({path})")
    return state


def _write_resume(path: Path, state: dict[str, Any]) -> str:
    """Write the file that training goes on from; return why it cannot be written."""
    try:
        write_state(path, state)
    except (CheckpointError, OSError) as error:
        return str(error)
    return ""
