"""What a killed training goes on from: a file, and of a sharded one a folder that the file names."""

import glob
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.baseline.cache import read_state, write_state
from benchmarks.baseline.parts import digests, write_together
from benchmarks.baseline.processes import from_first, is_first
from compression.errors import CheckpointError
from compression.training import EpochReport, is_sharded

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

        Of several processes the first writes, or each its part where they share a network.
        """
        self.unsaved_s += epoch.seconds
        if self.path is None or self.unsaved_s <= RESUME_EVERY_S:
            return
        try:
            if is_sharded(epoch.model):
                _write_parts(self.path, epoch)
            elif is_first():
                _write(self.path, epoch.state())
        except (CheckpointError, OSError) as error:
            if not self.unwritable:
                self.report(
                    f"{self.title}: {error}; training goes on, and a kill would cost all of it"
                )
            self.unwritable = True
        self.unsaved_s = 0.0


def read_resume(path: Path, report: Callable[[str], None]) -> dict[str, Any] | None:
    """Return the state that `path` holds; None without a file, or with a damaged one.

    All processes call it. Of a sharded training it is "epoch", and "parts", the folder of the rest.
    """
    there, state = from_first(lambda: (path.exists(), read_state(path)))
    if not there:
        return None
    place = path
    if state is not None and "parts" in state:
        place = path.with_name(state["parts"])
        state = {**state, "parts": place} if digests(place) == state["sha256"] else None
    if state is None:
        report(f"{place}: damaged, its checksum is not that of its bytes; training from the start")
        return None
    report(f"training goes on after epoch {state['epoch'] + 1} ({place})")
    return state


def forget(path: Path) -> None:
    """Delete what a training would go on from."""
    _sweep(path)
    path.unlink(missing_ok=True)


def _write_parts(path: Path, epoch: EpochReport) -> None:
    """Write a folder of this epoch, then its name into `path`: a kill leaves the one before."""
    folder = path.with_suffix(f".parts-{epoch.epoch}")
    found = write_together(folder, epoch.state())
    if is_first():
        _write(path, {"epoch": epoch.epoch, "parts": folder.name, "sha256": found}, keep=folder)


def _write(path: Path, state: dict[str, Any], keep: Path | None = None) -> None:
    """Write the file that training goes on from, and delete the folders of earlier ones."""
    write_state(path, state)
    _sweep(path, keep)


def _sweep(path: Path, keep: Path | None = None) -> None:
    for folder in path.parent.glob(f"{glob.escape(path.stem)}.parts-*"):
        if folder != keep:
            shutil.rmtree(folder, ignore_errors=True)
