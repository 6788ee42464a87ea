"""The processes that torchrun starts: how they meet, and what they must have in common."""

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch.distributed as dist
from torch.distributed.rendezvous import rendezvous

from compression.errors import CompressionError

Made = TypeVar("Made")
PLACE = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""The environment by which torchrun tells a process who it is and where the others are."""


@contextmanager
def joined(kind: str, timeout_s: float) -> Iterator[None]:
    """Join the processes that the environment names, on devices of this kind; none for one process.

    CompressionError where they do not meet within `timeout_s` seconds. After an error the group is
    left to the end of the process: it cannot be taken down where others are waited for.
    """
    if os.environ.get("WORLD_SIZE", "1") == "1":
        yield
        return
    missing = [name for name in PLACE if not os.environ.get(name)]
    if missing:
        raise CompressionError(
            f"WORLD_SIZE is {os.environ['WORLD_SIZE']}, and {', '.join(missing)} is not set: start the "
            "processes by torchrun, or set all of " + ", ".join(PLACE)
        )
    rank, world, address, port = (os.environ[name] for name in PLACE)
    try:
        wait = timedelta(seconds=timeout_s)
        store, number, count = next(rendezvous("env://", timeout=wait))
        backend = "cpu:gloo,cuda:nccl" if kind == "cuda" else "gloo"
        dist.init_process_group(backend, store=store, rank=number, world_size=count)
    except (RuntimeError, ValueError) as error:
        raise CompressionError(
            f"process {rank} of {world} did not meet the others at {address}:{port} within "
            f"{timeout_s:.0f} s ({str(error).strip().splitlines()[0]}): check that WORLD_SIZE "
            "processes are started, that MASTER_ADDR is the host of process 0 and can be reached from "
            "here, and that no firewall closes MASTER_PORT and no other program uses it"
        ) from error
    yield
    dist.barrier()
    dist.destroy_process_group()


def is_joined() -> bool:
    """Tell whether there are other processes."""
    return dist.is_available() and dist.is_initialized()


def is_first() -> bool:
    """Tell whether this process is the one that reports and writes."""
    return not is_joined() or dist.get_rank() == 0


def from_first(make: Callable[[], Made]) -> Made:
    """Return what `make` gives in the first process, in every process."""
    if not is_joined():
        return make()
    told: list[Any] = [make() if is_first() else None]
    dist.broadcast_object_list(told)
    made: Made = told[0]
    return made


def decided_by_first(question: str, decide: Callable[[], bool], timeout_s: float) -> bool:
    """Return what the first process decides; it may take longer than a group's own time limit."""
    if not is_joined():
        return decide()
    store = dist.distributed_c10d._get_default_store()
    if is_first():
        store.set(question, "yes" if decide() else "no")
    store.wait([question], timedelta(seconds=timeout_s))
    return bool(store.get(question) == b"yes")


def check_same(**facts: str) -> None:
    """Raise CompressionError, in every process, where one of them has another fact than the first."""
    if not is_joined():
        return
    table: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(table, (socket.gethostname(), facts))
    first_host, first = table[0]
    for rank, (host, found) in enumerate(table):
        for name, value in found.items():
            if value != first[name]:
                raise CompressionError(
                    f"process {rank} (on {host}) has {name.replace('_', ' ')} {value}, process 0 (on "
                    f"{first_host}) has {first[name]}: all must be the same, as the cached baseline is "
                    "named by it"
                )


def failed_first() -> bool:
    """Tell whether no other process has failed before this one, which then says why."""
    if not is_joined():
        return True
    try:
        store = dist.distributed_c10d._get_default_store()
        mine = str(dist.get_rank())
        return bool(store.compare_set("failed", "", mine).decode() == mine)
    except RuntimeError:  # gone, with the process that held it
        return False
