"""The native executor: bit for bit what the reference executor gives."""

import ctypes
from typing import Any

import pytest
import torch
from hypothesis import given, reject
from torch import Tensor, nn

from benchmarks.baseline.networks import drawn
from benchmarks.machine.kernels import NATIVE, kernels_of
from compression.errors import CompressionError, UnsupportedTypeError
from compression.integer import (
    IntegerModel,
    NativeModel,
    code_differences,
    deploy,
    lacking,
    lower_native,
)
from compression.integer.native import library
from compression.quantization import modules as q
from compression.quantization import quantize_static
from compression.quantization.attention import TABLE
from tests.support.integer_nets import NETS, Depthwise, convolutions, depthwise, numbers
from tests.support.nets import images, residual

pytestmark = pytest.mark.skipif(lacking("native") is not None, reason=str(lacking("native")))


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "mobilenet_v2", "densenet121"])
def test_every_layer_of_a_network_gives_the_codes_of_the_reference(name: str) -> None:
    model = drawn(name, 10)
    x = numbers(2, 3, 48, 48)
    reference = quantize_static(model, x)
    integer = lower_native(reference, x, keep=True)
    differences = code_differences(reference, integer, x)
    assert len(differences) > 20
    assert set(differences.values()) == {(0, 0.0)}
    with torch.inference_mode():
        assert torch.equal(integer(x), reference(x))


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("net", NETS)
def test_outputs_are_the_reference_executors_bit_for_bit(net: str, threads: int) -> None:
    torch.manual_seed(0)
    model, x = NETS[net]()
    reference = quantize_static(model, x)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.inference_mode():
            wanted = reference(x)
            for example in (x[:2], x):  # chunks of 2, and what is left; images of each thread's own
                integer = lower_native(reference, example)
                assert torch.equal(integer(x), wanted)
                assert torch.equal(integer(x[:1]), wanted[:1])
                assert torch.equal(integer(x), wanted), "nothing is left of another prediction"
    finally:
        torch.set_num_threads(before)


@given(convolutions())
def test_any_convolution_is_the_reference(case: tuple[nn.Module, Tensor]) -> None:
    assert_every_code_is_the_references(*case)


def assert_every_code_is_the_references(model: nn.Module, x: Tensor) -> None:
    reference = quantize_static(model, x)
    try:
        integer = lower_native(reference, x, keep=True)
    except UnsupportedTypeError:  # a layer of zeros: its scale is tiny, its bias saturates
        reject()
    assert set(code_differences(reference, integer, x).values()) == {(0, 0.0)}
    with torch.inference_mode():
        assert torch.equal(integer(x), reference(x))


@given(depthwise())
def test_any_depthwise_convolution_is_the_reference(case: tuple[nn.Module, Tensor]) -> None:
    assert_every_code_is_the_references(*case)


@pytest.mark.parametrize("channels", [16, 70])
@pytest.mark.parametrize(
    "window",
    [
        {"kernel_size": 3, "padding": 1},
        {"kernel_size": 3, "padding": 1, "stride": 2},
        {"kernel_size": 3, "padding": 1, "stride": 3},
        {"kernel_size": 3, "padding": 2, "dilation": 2},
        {"kernel_size": 3, "padding": 4, "stride": 2},
        {"kernel_size": 5, "padding": 2},
        {"kernel_size": 5, "padding": 2, "stride": 2},
        {"kernel_size": 7, "padding": 3},
        {"kernel_size": (1, 5), "padding": (0, 2)},
        {"kernel_size": (5, 1), "padding": (2, 0)},
        {"kernel_size": 9, "padding": 4},
    ],
    ids=str,
)
def test_depthwise_windows_are_the_reference(channels: int, window: dict[str, Any]) -> None:
    """Each window that has a kernel of its own, and those that have none; maps smaller than it, too."""
    torch.manual_seed(0)
    for batch, sides in ((3, (6, 11)), (1, (4, 4))):
        model = Depthwise(channels, added=True, real=batch == 1, **window)
        assert_every_code_is_the_references(model.eval(), numbers(batch, 2, *sides))


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("channels", [2, 16, 33, 64, 65, 130])
def test_one_weight_per_channel_is_the_reference(channels: int, stride: int) -> None:
    """As a batch norm after a concatenation is: four pixels at a time, and those that are left."""
    torch.manual_seed(0)
    window = {"kernel_size": 1, "stride": stride}
    for batch, sides in ((3, (6, 11)), (1, (3, 3))):
        model = Depthwise(channels, added=False, real=False, **window)
        assert_every_code_is_the_references(model.eval(), numbers(batch, 2, *sides))


@pytest.mark.parametrize(
    ("groups", "inputs", "outputs"),
    [
        (13, 8, 8),  # two vectors of groups a slice; one and a half in the last
        (2, 8, 8),
        (16, 4, 4),  # four vectors
        (32, 4, 4),
        (13, 4, 4),  # not whole slices: multiplied with zeros
        (13, 8, 16),  # two by two, and one
        (6, 40, 40),  # one by one
        (5, 3, 4),
        (9, 1, 3),
        (2, 24, 24),
        (3, 5, 70),  # more outputs than a block
        (3, 70, 8),  # the last alone would read what is not its own
    ],
)
def test_groups_of_any_size_are_the_reference(groups: int, inputs: int, outputs: int) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, groups * inputs, 1), nn.ReLU(),
        nn.Conv2d(groups * inputs, groups * outputs, 3, 2, 1, groups=groups), nn.ReLU(),
        nn.Conv2d(groups * outputs, groups * outputs, (2, 1), groups=groups), nn.Flatten(),
    )  # fmt: skip
    assert_every_code_is_the_references(model.eval(), numbers(3, 3, 9, 7))


def test_the_softmax_has_every_entry_of_the_references_table() -> None:
    entries = torch.empty(len(TABLE), dtype=torch.int32)
    library().softmax_table(ctypes.c_void_p(entries.data_ptr()))
    assert torch.equal(entries, TABLE.int())


def test_the_compiled_code_counts_the_layers_that_it_ran() -> None:
    model, x = residual(), images()
    reference = quantize_static(model, x)
    layers = sum(isinstance(m, q.QuantizedLayer) for m in reference.modules())
    assert kernels_of(lower_native(reference, x), x)[NATIVE] == layers
    assert not kernels_of(reference, x)[NATIVE]


def test_deploy_chooses_native_and_leaves_what_it_cannot_to_onednn() -> None:
    x = images()
    assert isinstance(deploy(quantize_static(residual(), x), x), NativeModel)
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.ConvTranspose2d(3, 6, 3, groups=3), nn.ReLU(), nn.Flatten(), nn.Linear(600, 2)
    )
    reference = quantize_static(model.eval(), x)
    with pytest.raises(UnsupportedTypeError, match=r"no kernel for 0 \(QuantizedLayer\)"):
        lower_native(reference, x)
    if not lacking("onednn"):
        assert isinstance(deploy(reference, x), IntegerModel)


def test_an_input_of_another_size_is_refused() -> None:
    x = images()
    integer = lower_native(quantize_static(residual(), x), x)
    with pytest.raises(CompressionError, match=r"made for inputs \(N, 3, .*found \(2, 3, 5, 5\)"):
        integer(numbers(2, 3, 5, 5))
