"""The native executor: bit for bit what the reference executor gives."""

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
from compression.quantization import modules as q
from compression.quantization import quantize_static
from tests.support.integer_nets import NETS, convolutions, numbers
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
        integer = lower_native(reference, x[:2])  # a chunk of 2, and what is left
        with torch.inference_mode():
            wanted = reference(x)
            assert torch.equal(integer(x), wanted)
            assert torch.equal(integer(x[:1]), wanted[:1])
            assert torch.equal(integer(x), wanted), "nothing is left of another prediction"
    finally:
        torch.set_num_threads(before)


@given(convolutions())
def test_any_convolution_is_the_reference(case: tuple[nn.Module, Tensor]) -> None:
    model, x = case
    reference = quantize_static(model, x)
    try:
        integer = lower_native(reference, x, keep=True)
    except UnsupportedTypeError:  # a layer of zeros: its scale is tiny, its bias saturates
        reject()
    assert set(code_differences(reference, integer, x).values()) == {(0, 0.0)}


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
