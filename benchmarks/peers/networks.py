"""torchvision's networks as workloads, for the processes of the engines.

`benchmarks.peers.networks:resnet18` is one, by the name that `resolve` takes.
"""

from dataclasses import replace
from functools import partial

from torch import nn

from benchmarks.baseline.networks import drawn
from benchmarks.coverage.__main__ import FAMILIES
from benchmarks.coverage.case import draw_statistics
from benchmarks.workloads import DIGITS_224, Workload

NETWORKS = tuple(FAMILIES.split())


def network(name: str) -> nn.Module:
    """Return torchvision's network with drawn weights and statistics."""
    return draw_statistics(drawn(name))


def __getattr__(name: str) -> Workload:
    if name not in NETWORKS:
        raise AttributeError(f"expected one of {', '.join(NETWORKS)}, found {name!r}")
    return replace(DIGITS_224, name=name, network=partial(network, name))
