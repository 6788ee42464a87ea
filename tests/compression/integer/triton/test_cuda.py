"""The Triton executor on a GPU, against the reference executor on the CPU, whose sums are exact."""

import pytest
import torch

from benchmarks.baseline.networks import drawn
from benchmarks.machine.kernels import TRITON, kernels_of
from compression.integer import TritonModel, code_differences, deploy, lacking, lower_triton
from compression.integer.triton.config import LARGE, SMALL, Config
from compression.layers import copy_model
from compression.quantization import StaticQuantizedModel, quantize_static
from tests.support import transformer_nets
from tests.support.attention_cases import MASKS, attending
from tests.support.integer_nets import NETS, numbers

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
    pytest.mark.skipif(bool(lacking("triton")), reason=str(lacking("triton"))),
]


def on_cuda(reference: StaticQuantizedModel) -> StaticQuantizedModel:
    return copy_model(reference).cuda()  # type: ignore[return-value]


@pytest.mark.parametrize("batch", [1, 8])
@pytest.mark.parametrize("name", ["resnet18", "resnet50", "mobilenet_v2", "densenet121"])
def test_every_layer_gives_the_codes_of_the_reference(name: str, batch: int) -> None:
    x = numbers(batch, 3, 224, 224)
    reference = quantize_static(drawn(name, 10), x)
    integer = lower_triton(on_cuda(reference), x.cuda(), keep=True)
    assert set(code_differences(reference, integer, x).values()) == {(0, 0.0)}


@pytest.mark.parametrize("net", NETS)
def test_outputs_are_the_reference_executors_bit_for_bit(net: str) -> None:
    torch.manual_seed(0)
    model, x = NETS[net]()
    reference = quantize_static(model, x)
    integer = lower_triton(on_cuda(reference), x[:2].cuda())
    with torch.inference_mode():
        assert torch.equal(integer(x.cuda()).cpu(), reference(x))


@pytest.mark.parametrize("net", transformer_nets.NETS)
def test_every_layer_of_a_transformer_gives_the_codes_of_the_reference(net: str) -> None:
    model, x = transformer_nets.NETS[net]()
    reference = quantize_static(model, x)
    integer = lower_triton(on_cuda(reference), x.cuda(), keep=True)
    assert set(code_differences(reference, integer, x).values()) == {(0, 0.0)}


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize(
    "size", [((197, 197), 3, 64, 64), ((5, 130), 2, 320, 33), ((1, 1), 1, 1, 1)]
)
def test_attention_of_any_size_is_the_reference_bit_for_bit(size, mask: str) -> None:
    model, x = attending(*size, mask=mask)
    reference = quantize_static(model, x)
    integer = lower_triton(on_cuda(reference), x.cuda())
    with torch.inference_mode():
        assert torch.equal(integer(x.cuda()).cpu(), reference(x))


@pytest.mark.parametrize("config", [*LARGE, *SMALL], ids=str)
def test_every_tile_gives_the_same_outputs(config: Config) -> None:
    x = numbers(3, 3, 64, 64)
    reference = quantize_static(drawn("resnet18", 10), x)
    integer = lower_triton(on_cuda(reference), x.cuda(), config=config)
    with torch.inference_mode():
        for _ in range(3):  # sums that programs share are cleared behind each prediction
            assert torch.equal(integer(x.cuda()).cpu(), reference(x))


@pytest.mark.parametrize("batch", [1, 64], ids=["inputs copied", "inputs read in place"])
def test_a_replay_reads_new_inputs_and_can_itself_be_captured(batch: int) -> None:
    x, y = (numbers(batch, 3, 224, 224, seed=seed).cuda() for seed in (0, 1))
    reference = quantize_static(drawn("resnet18", 10).cuda(), x[:4])
    integer = deploy(reference, x)
    assert isinstance(integer, TritonModel)
    with torch.inference_mode():
        wanted = [integer(x), integer(y)]
        assert not torch.equal(*wanted)
        held = x.clone()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            outputs = integer(held)
        held.copy_(y)
        graph.replay()
        assert torch.equal(outputs, wanted[1])
    assert kernels_of(integer, x)[TRITON] == len(integer.convolutions())
