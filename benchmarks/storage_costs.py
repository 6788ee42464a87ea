"""Networks to store, and the cost of storing them.

`python -m benchmarks.storage_costs` answers with the memory.
"""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import torchvision
from torch import nn

from benchmarks.machine.memory import PeakMemory
from benchmarks.machine.process import serve
from compression.clustering import share_weights
from compression.pruning import prune_l1_unstructured
from compression.storage import load, save

Compress = Callable[[nn.Module], nn.Module]
KINDS: dict[str, tuple[Compress, bool]] = {
    # name: how the network is compressed, and whether its file is entropy-coded
    "dense": (lambda m: m, False),
    "sparse": (lambda m: prune_l1_unstructured(m, amount=0.6), False),
    "dense-coded": (lambda m: m, True),
    "sparse-coded": (lambda m: prune_l1_unstructured(m, amount=0.6), True),
    "shared-coded": (
        lambda m: share_weights(prune_l1_unstructured(m, amount=0.85), num_clusters=32),
        True,
    ),
}
CPU = torch.device("cpu")


def factory(network: str) -> Callable[[], nn.Module]:
    """Return what builds torchvision's network of that name."""
    return lambda: getattr(torchvision.models, network)()


def make_network(network: str, kind: str) -> nn.Module:
    """Return the network with weights drawn by seed 0, compressed as `kind` says."""
    torch.manual_seed(0)
    return KINDS[kind][0](factory(network)().eval())


def save_seconds(model: nn.Module, path: Path, *, entropy_coded: bool) -> float:
    """Return the seconds of a save without those of fsync, which are the disk's."""
    apart = [0.0]
    sync = os.fsync

    def timed(handle: int) -> None:
        started = time.perf_counter()
        sync(handle)
        apart[0] += time.perf_counter() - started

    with mock.patch.object(os, "fsync", timed):
        started = time.perf_counter()
        save(model, path, entropy_coded=entropy_coded)
        return time.perf_counter() - started - apart[0]


def load_seconds(path: Path, network: str) -> float:
    """Return the seconds of a load without those of building the network and its weights."""
    apart = [0.0]

    def timed() -> nn.Module:
        started = time.perf_counter()
        model = factory(network)()
        apart[0] = time.perf_counter() - started
        return model

    started = time.perf_counter()
    load(path, timed)
    return time.perf_counter() - started - apart[0]


def peak(network: str, kind: str, path: str, do: str) -> dict[str, Any]:
    """Answer with the bytes of memory that a save or load takes beyond those before it."""
    save(nn.Linear(2, 2), f"{path}.warm")  # to leave out what is made once per process
    load(f"{path}.warm", lambda: nn.Linear(2, 2))
    if do == "load":
        with PeakMemory(CPU) as memory:
            load(path, factory(network))
    else:
        model = make_network(network, kind)
        with PeakMemory(CPU) as memory:
            save(model, path, entropy_coded=KINDS[kind][1])
    return {"peak_bytes": memory.peak_bytes}


if __name__ == "__main__":
    serve(peak)
