"""Speed and memory of saving and loading: `pytest benchmarks/test_storage.py -m storage`."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from benchmarks.facts.record import record
from benchmarks.machine.process import Process
from benchmarks.storage_costs import KINDS, load_seconds, make_network, save_seconds
from benchmarks.timing.clock import CLOCK, replay
from compression.accounting import dense_bytes
from compression.storage import contents, save

NETWORKS = ("resnet18", "resnet50", "resnet152")
ROUNDS = 9
MB = 10**6
# Float32 megabytes of the network that are saved or loaded per second, at least. The fastest round
# counts: other processes can only slow it down.
LEAST_MB_PER_S = {
    "dense": {"save": 300, "load": 300},
    "sparse": {"save": 150, "load": 150},
    "dense-coded": {"save": 150, "load": 60},
    "sparse-coded": {"save": 150, "load": 60},
    "shared-coded": {"save": 150, "load": 60},
}
MOST_MEMORY = 2.0
"""Float32 sizes of the network in memory at once, the network itself included."""

pytestmark = [pytest.mark.storage, pytest.mark.benchmark(timer=CLOCK)]
every_file = pytest.mark.parametrize("kind", KINDS)
both_ways = pytest.mark.parametrize("do", ["save", "load"])
every_network = pytest.mark.parametrize("network", NETWORKS)

StoredNetwork = Callable[[str, str], tuple[nn.Module, Path]]


@pytest.fixture(scope="module")
def stored_network(tmp_path_factory: pytest.TempPathFactory) -> StoredNetwork:
    """Return a function that makes a network of a kind, and its file."""
    folder = tmp_path_factory.mktemp("storage")

    @cache
    def get(network: str, kind: str) -> tuple[nn.Module, Path]:
        model, path = make_network(network, kind), folder / f"{network}-{kind}"
        save(model, path, entropy_coded=KINDS[kind][1])
        return model, path

    return get


def facts(network: str, kind: str, do: str, model: nn.Module, path: Path) -> dict[str, Any]:
    return {
        "technique": f"{network}-{kind}", "device": "cpu", "workload": "storage", "do": do,
        "data": "weights drawn at random", "simulated": False, "contents": contents(path),
        "stored_bytes": path.stat().st_size, "dense_bytes": dense_bytes(model),
    }  # fmt: skip


@every_network
@every_file
@both_ways
def test_speed(
    benchmark: Any, request: Any, stored_network: StoredNetwork, network: str, kind: str, do: str
) -> None:
    model, path = stored_network(network, kind)
    again = path.with_suffix(".again")
    coded = KINDS[kind][1]
    seconds = [
        save_seconds(model, again, entropy_coded=coded)
        if do == "save"
        else load_seconds(path, network)
        for _ in range(ROUNDS)
    ]
    replay(benchmark, seconds)
    about = facts(network, kind, do, model, path)
    speed, least = about["dense_bytes"] / MB / min(seconds), LEAST_MB_PER_S[kind][do]
    met = speed >= least
    record(
        benchmark, request, metric="storage-speed", mb_per_s=speed, target=least, target_met=met,
        **about,
    )  # fmt: skip
    assert met, f"{speed:.0f} MB/s, at least {least} expected"


@pytest.mark.parametrize("network", ["resnet18", "resnet152"])
@pytest.mark.parametrize("kind", ["dense", "sparse", "shared-coded"])
@both_ways
def test_memory(
    benchmark: Any, request: Any, stored_network: StoredNetwork, network: str, kind: str, do: str
) -> None:
    model, path = stored_network(network, kind)
    process = Process("benchmarks.storage_costs", {})
    target = path if do == "load" else path.with_suffix(".again")
    peak_bytes = process.ask(network=network, kind=kind, path=str(target), do=do)["peak_bytes"]
    process.close()
    if peak_bytes is None:
        pytest.skip("peak memory is read from Linux's /proc")
    about = facts(network, kind, do, model, path)
    # Before a save starts, the network is in memory.
    sizes = peak_bytes / about["dense_bytes"] + (do == "save")
    replay(benchmark, [max(sizes, 1e-9)])
    met = sizes <= MOST_MEMORY
    record(
        benchmark, request, metric="storage-memory", model_sizes=sizes, target=MOST_MEMORY,
        target_met=met, **about,
    )  # fmt: skip
    assert met, f"{sizes:.2f} sizes of the network in memory, at most {MOST_MEMORY} expected"
