"""torchvision's networks and those of other tasks as workloads, for the processes of the engines.

`benchmarks.peers.networks:resnet18` is one, by the name that `resolve` takes.
"""

from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from benchmarks.baseline.networks import drawn
from benchmarks.coverage.__main__ import FAMILIES
from benchmarks.coverage.case import draw_statistics
from benchmarks.peers.tasks import TASKS
from benchmarks.workloads import DIGITS_224, Workload

NETWORKS = (*FAMILIES.split(), *TASKS)


def network(name: str) -> nn.Module:
    """Return a network with drawn weights and statistics."""
    if name not in TASKS:
        return draw_statistics(drawn(name))
    torch.manual_seed(0)
    return draw_statistics(TASKS[name].network())


def inputs(name: str, images: Tensor) -> Tensor:
    """Return what a network takes, made of images (N, 3, 224, 224)."""
    return TASKS[name].inputs(images) if name in TASKS else images.contiguous()


def __getattr__(name: str) -> Workload:
    if name not in NETWORKS:
        raise AttributeError(f"expected one of {', '.join(NETWORKS)}, found {name!r}")
    return replace(DIGITS_224, name=name, network=partial(network, name))
