"""Integer and reference executor side by side: `pytest benchmarks/test_integer.py -m integer`."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks.baseline.data import Data, load_digits_224
from benchmarks.baseline.examples import all_labels
from benchmarks.baseline.networks import drawn
from benchmarks.facts.record import record
from benchmarks.machine.kernels import count_integer_kernels, kernels_of
from benchmarks.techniques import BY_NAME
from benchmarks.timing.clock import CLOCK, replay, wall_timer
from benchmarks.timing.speed_up import interleave, latency_facts
from compression.integer import EXECUTORS, code_differences, deploy, lacking, preferred
from compression.quantization import StaticQuantizedModel, quantize_static
from compression.training import predict

NETWORKS = ("resnet18", "resnet50", "vgg11_bn", "mobilenet_v2", "densenet121")
CPU = torch.device("cpu")
SAME_CHOICE = 0.999
SAME_ACCURACY = 0.0005
CALIBRATION_IMAGES = 16
BUDGET_S = 20.0

pytestmark = [
    pytest.mark.integer,
    pytest.mark.benchmark(timer=CLOCK),
]


executors = pytest.mark.parametrize("executor", preferred("cpu"), indirect=True)


@pytest.fixture
def executor(request: Any) -> str:
    """Return an executor that runs here."""
    reason = lacking(request.param)
    if reason:
        pytest.skip(reason)
    return str(request.param)


@pytest.fixture(scope="module")
def images() -> Data:
    """Return the digits at 224x224: real images of the networks' own size."""
    return load_digits_224()


def differences(
    reference: StaticQuantizedModel, executor: str, integer: Any, inputs: Tensor
) -> tuple[int, float]:
    """Return the largest difference of codes, and the share that differs in the worst layer."""
    keep = EXECUTORS[executor].keep
    integer = integer if keep is None else keep(reference, inputs)
    layers = code_differences(reference, integer, inputs).values()
    return max(largest for largest, _ in layers), max(share for _, share in layers)


@executors
@pytest.mark.parametrize("name", NETWORKS)
def test_network(benchmark: Any, request: Any, images: Data, name: str, executor: str) -> None:
    model = drawn(name)
    inputs = images.train.inputs(slice(0, CALIBRATION_IMAGES))
    reference = quantize_static(model, list(inputs.split(4)))
    example = images.validation.inputs(slice(0, 1))
    integer = deploy(reference, example, executor=executor)
    largest, share = differences(
        reference, executor, integer, images.validation.inputs(slice(0, 2))
    )
    ran = kernels_of(integer, example)
    with torch.inference_mode():
        timers = [wall_timer(partial(m, example), CPU) for m in (model, integer)]
        pairs = interleave(*timers, seed=0, budget_s=BUDGET_S)
    stayed = getattr(integer, "stayed", ())
    replay(benchmark, pairs.technique_s)
    facts = latency_facts(pairs) | {"latency_ms": min(pairs.technique_s) * 1e3}
    record(
        benchmark, request, technique=f"{name}-{executor}", device="cpu", workload="networks",
        data="digits at 224x224", simulated=False, timing="wall", batch_size=1, **facts,
        integer_kernels=count_integer_kernels(ran),
        stayed=list(stayed), largest_code_difference=largest, differing_codes=share,
    )  # fmt: skip
    assert largest <= 1
    assert not stayed


@executors
@pytest.mark.usefixtures("of_classes")
@pytest.mark.parametrize("name", ["static-int8", "int8-qat"])
def test_agreement(
    benchmark: Any,
    request: Any,
    artifact_of: Callable[..., Any],
    data: Data,
    name: str,
    executor: str,
) -> None:
    artifact = artifact_of(BY_NAME[name], CPU)
    reference = artifact.load(CPU)
    integer = deploy(reference, data.test.inputs(slice(0, 50)), executor=executor)
    choices = [predict(model, data.test).argmax(1) for model in (reference, integer)]
    same = float((choices[0] == choices[1]).float().mean())
    labels = all_labels(data.test)
    simulated, deployed = (float((c == labels).float().mean()) for c in choices)
    largest, _ = differences(reference, executor, integer, data.test.inputs(slice(0, 500)))
    replay(benchmark, [artifact.seconds])
    record(
        benchmark, request, metric="agreement", **artifact.facts, executor=executor,
        total=len(data.test),
        same_choice=same, simulated_accuracy=simulated, deployed_accuracy=deployed,
        largest_code_difference=largest,
    )  # fmt: skip
    assert largest <= 1
    assert same >= SAME_CHOICE
    assert abs(simulated - deployed) <= SAME_ACCURACY
