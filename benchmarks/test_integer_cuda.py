"""INT8 on a GPU compared with the best float16 path, and each layer with its floor.

`pytest benchmarks/test_integer_cuda.py -m integer`, on torchvision's networks at 224x224.
"""

import math
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks.baseline.data import Data, load_digits_224
from benchmarks.baseline.networks import drawn
from benchmarks.facts.record import record
from benchmarks.machine.cuda_flags import autotune, cuda_flags
from benchmarks.machine.device import device_name
from benchmarks.machine.kernels import TRITON, kernels_of
from benchmarks.timing.batch import repeat_images
from benchmarks.timing.ceilings import ceilings
from benchmarks.timing.clock import CLOCK, Timer, cuda_graph_timer, replay, wall_timer
from benchmarks.timing.prediction import prediction
from benchmarks.timing.race import race
from benchmarks.timing.speed_up import Pairs, latency_facts
from compression.graph import fold_batch_norm
from compression.integer import TritonModel, deploy, lacking
from compression.integer.triton.launch import Launch
from compression.quantization import quantize_static

DEVICE = torch.device("cuda")
NETWORKS = ("resnet18", "resnet50")
# batch: how many times as fast as the fastest float16 path INT8 must be. At batch 1 both wait for
# memory and launches; at 128 tensor cores do twice as many int8 products.
AT_LEAST = {1: 1.0, 128: 1.5}
FAR = 2.0
"""A layer that takes more than this many times its floor is named in the record."""
CALIBRATION_IMAGES = 64
BUDGET_S = 20.0
LAYER_ROUNDS = 30

pytestmark = [
    pytest.mark.integer,
    pytest.mark.gpu,
    pytest.mark.benchmark(timer=CLOCK),
    pytest.mark.filterwarnings("default"),  # a compiler's warning is no slower layer
    pytest.mark.skipif(bool(lacking("triton")), reason=str(lacking("triton"))),
]


@pytest.fixture(scope="module")
def data() -> Data:
    """Return the digits at 224x224: real images of the networks' own size."""
    return load_digits_224()


def batch_of(data: Data, size: int) -> Tensor:
    return repeat_images(data.validation, size).to(DEVICE).inputs(slice(None))


def integer_network(name: str, data: Data, images: Tensor) -> TritonModel:
    calibration = data.train.inputs(slice(0, CALIBRATION_IMAGES))
    reference = quantize_static(drawn(name), list(calibration.split(16)))
    integer = deploy(reference.to(DEVICE), images, executor="triton")
    assert isinstance(integer, TritonModel)
    return integer


def float16_paths(name: str, images: Tensor) -> dict[str, Timer]:
    """Return float16 ways to predict as an engineer would: batch norm folded, channels last."""
    model = fold_batch_norm(drawn(name)).to(DEVICE, torch.float16)
    model = model.to(memory_format=torch.channels_last)
    inputs = images.half().contiguous(memory_format=torch.channels_last)
    compiled: Any = torch.compile(model, mode="max-autotune-no-cudagraphs", dynamic=False)
    eager, fused = prediction(model, inputs), prediction(compiled, inputs)
    return {
        "float16-channels-last": wall_timer(eager, DEVICE),
        "float16-channels-last-graph": cuda_graph_timer(eager),
        "float16-compiled": wall_timer(fused, DEVICE),
        "float16-compiled-graph": cuda_graph_timer(fused),
    }


@pytest.mark.parametrize("batch_size", AT_LEAST)
@pytest.mark.parametrize("name", NETWORKS)
def test_against_float16(
    benchmark: Any, request: Any, data: Data, name: str, batch_size: int
) -> None:
    images = batch_of(data, batch_size)
    integer = integer_network(name, data, images)
    predict = prediction(integer, images)
    with autotune(DEVICE):
        floats = float16_paths(name, images)
        ours = {"int8": wall_timer(predict, DEVICE), "int8-graph": cuda_graph_timer(predict)}
        times = race({**floats, **ours}, budget_s=BUDGET_S)
    quickest = {n: sorted(t)[len(t) // 4] for n, t in times.items()}
    best, own = (min(group, key=quickest.__getitem__) for group in (floats, ours))
    facts = latency_facts(Pairs(times[best], times[own]))
    replay(benchmark, times[own])
    limit = AT_LEAST[batch_size] if name == "resnet18" else None
    met = None if limit is None else bool(facts["speed_up_high"] >= limit)
    record(
        benchmark, request, technique=f"{name}-int8", device="cuda", workload="networks",
        data="digits at 224x224", simulated=False, timing="best", batch_size=batch_size, **facts,
        **cuda_flags(), device_name=device_name(DEVICE), beaten=best, ours=own,
        quickest_ms={n: s * 1e3 for n, s in quickest.items()}, target=limit, target_met=met,
        integer_kernels=kernels_of(integer, images)[TRITON],
    )  # fmt: skip
    assert met is not False, f"{facts['speed_up']:.2f}x of {best}, at least {limit}x expected"


@pytest.mark.parametrize("batch_size", AT_LEAST)
@pytest.mark.parametrize("name", NETWORKS)
def test_layers(benchmark: Any, request: Any, data: Data, name: str, batch_size: int) -> None:
    """Each convolution's time in a graph of its own repetitions, beside its floor."""
    images = batch_of(data, batch_size)
    integer = integer_network(name, data, images)
    outputs = integer(images)
    card = ceilings(DEVICE)
    layers = [layer_facts(launch, images, outputs) for launch in integer.convolutions()]
    replay(benchmark, [sum(layer["ms"] for layer in layers) / 1e3])
    record(
        benchmark, request, technique=f"{name}-int8-layers", device="cuda", workload="networks",
        data="digits at 224x224", simulated=False, metric="layers", batch_size=batch_size,
        device_name=device_name(DEVICE), bytes_per_s=card.bytes_per_s,
        int8_ops_per_s=card.int8_ops_per_s, float16_ops_per_s=card.float16_ops_per_s,
        layers=layers, far=[layer["name"] for layer in layers if layer["times_floor"] > FAR],
    )  # fmt: skip
    print_layers(request, layers)
    assert all(math.isfinite(layer["ms"]) and layer["ms"] > 0 for layer in layers)


def layer_facts(launch: Launch, images: Tensor, outputs: Tensor) -> dict[str, Any]:
    macs, moved_bytes = launch.work(len(images))
    floor = ceilings(DEVICE).floor_ms(macs, moved_bytes)

    def repeated() -> Tensor:
        for _ in range(LAYER_ROUNDS):
            launch(len(images), images, outputs)
        return outputs

    timer = cuda_graph_timer(repeated)
    milliseconds = min(timer() for _ in range(5)) / LAYER_ROUNDS * 1e3
    c = launch.config
    return {
        "name": launch.name, "macs": macs, "moved_bytes": moved_bytes, **floor, "ms": milliseconds,
        "times_floor": milliseconds / max(floor.values()),
        "tile": [c.block_m, c.block_n, c.block_k, c.splits, c.num_warps, c.num_stages],
    }  # fmt: skip


def print_layers(request: Any, layers: list[dict[str, Any]]) -> None:
    """Print one line per layer: its time, both floors, and the tile that was chosen."""
    write = partial(print, flush=True)
    with request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        write(f"\n{'layer':<24}{'ms':>9}{'bytes ms':>10}{'int8 ms':>9}{'x floor':>9}  tile")
        for layer in layers:
            write(
                f"{layer['name']:<24}{layer['ms']:>9.4f}{layer['bytes_ms']:>10.4f}"
                f"{layer['operations_ms']:>9.4f}{layer['times_floor']:>9.2f}  {layer['tile']}"
            )
