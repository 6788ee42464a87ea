"""A folder into which each process writes its part of a state, checked bit for bit."""

import hashlib
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch.distributed as dist

from benchmarks.baseline.processes import is_first, is_joined
from compression.errors import CheckpointError
from compression.training import write_parts


def write_together(folder: Path, state: dict[str, Any]) -> dict[str, str]:
    """Write a state, of which each process holds a part, and return its digests.

    All processes call it. CheckpointError where one cannot write, or does not see what others wrote.
    """
    if is_first():
        shutil.rmtree(folder, ignore_errors=True)  # what a killed training began
    dist.barrier()
    try:
        write_parts(folder, state)
        found = digests(folder)
        if not found:
            raise CheckpointError(
                f"{folder}: the processes do not see each other's files; set XDG_CACHE_HOME to a "
                "folder that all hosts share"
            )
    except CheckpointError:
        shutil.rmtree(folder, ignore_errors=True)  # by all: each may have another
        raise
    return found


def digests(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of each file by its name; none where the processes see other files.

    All processes call it, and each reads a share.
    """
    names: list[str] = []
    with suppress(OSError):  # no such folder, on this host
        names = sorted(path.name for path in folder.iterdir())
    rank, world = (dist.get_rank(), dist.get_world_size()) if is_joined() else (0, 1)
    mine = {name: _digest(folder / name) for name in names[rank::world]}
    told: list[Any] = [(names, mine)] * world
    if is_joined():
        dist.all_gather_object(told, (names, mine))
    if any(seen != names for seen, _ in told):
        return {}
    return {name: digest for _, share in told for name, digest in share.items()}


def _digest(path: Path) -> str:
    with suppress(OSError), path.open("rb") as file:  # a damaged disk is a damaged file
        return hashlib.file_digest(file, "sha256").hexdigest()
    return ""
