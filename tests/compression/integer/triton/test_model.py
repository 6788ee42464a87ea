"""The Triton executor, in Triton's interpreter: bit for bit what the reference executor gives."""

import pytest
import torch
import torchvision
from hypothesis import given, reject, settings
from torch import Tensor, nn

from benchmarks.baseline.networks import drawn
from compression.accounting import count_macs
from compression.errors import CompressionError, UnsupportedTypeError
from compression.integer import code_differences, lower_triton
from compression.integer.triton.config import Config, candidates
from compression.integer.triton.tuning import tune
from compression.quantization import modules as q
from compression.quantization import quantize_static
from tests.support.integer_nets import NETS, convolutions, numbers
from tests.support.interpreter import lacking_interpreter
from tests.support.nets import images, residual
from tests.support.strategies import examples

pytestmark = pytest.mark.skipif(bool(lacking_interpreter()), reason=lacking_interpreter())
WIDE = Config(32, 128, 256)
CONFIGS = {
    "default": None,
    "small": Config(16, 16, 32),
    "shared": Config(32, 32, 32, splits=3),
    "more programs than blocks": Config(64, 64, 128, splits=6),
}


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2"])
def test_every_layer_of_a_network_gives_the_codes_of_the_reference(name: str) -> None:
    model = drawn(name, 10)
    x = numbers(1, 3, 32, 32)
    reference = quantize_static(model, x)
    integer = lower_triton(reference, x, keep=True, config=WIDE)
    differences = code_differences(reference, integer, x)
    assert len(differences) > 20
    assert set(differences.values()) == {(0, 0.0)}


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("net", NETS)
def test_outputs_are_the_reference_executors_bit_for_bit(net: str, config: str) -> None:
    torch.manual_seed(0)
    model, x = NETS[net]()
    batch = 2 if config == "default" else 1  # the interpreter's time goes by the programs
    x = x[: batch + 1]
    reference = quantize_static(model, x)
    integer = lower_triton(reference, x[:batch], config=CONFIGS[config])  # a batch, and one more
    with torch.inference_mode():
        wanted = reference(x)
        assert torch.equal(integer(x), wanted)
        assert torch.equal(integer(x[batch:]), wanted[batch:]), "nothing is left of another one"


@settings(max_examples=examples(0.2))
@given(convolutions())
def test_any_convolution_is_the_reference(case: tuple[nn.Module, Tensor]) -> None:
    model, x = case
    reference = quantize_static(model, x)
    try:
        integer = lower_triton(reference, x, keep=True, config=CONFIGS["shared"])
    except UnsupportedTypeError:  # a layer of zeros: its scale is tiny, its bias saturates
        reject()
    assert set(code_differences(reference, integer, x).values()) == {(0, 0.0)}


class Replayed:
    """Stands for a CUDA graph: a replay launches what was captured, on what it was captured with."""

    def __init__(self, model, first: int, inputs: Tensor, outputs: Tensor) -> None:
        self.model, self.first, self.count = model, first, 0
        self.captured = (inputs, outputs)

    def replay(self) -> None:
        self.count += 1
        self.model._launch(self.model.launches[self.first :], *self.captured)


@pytest.mark.parametrize("copied", [True, False], ids=["inputs copied", "inputs read in place"])
def test_whole_batches_replay_the_graph(copied: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    x = images(5)
    reference = quantize_static(residual(), x)
    integer = lower_triton(reference, x[:2])
    held = torch.zeros(2 if copied else 0, *x.shape[1:])
    graph = Replayed(integer, 0 if copied else 1, held, torch.zeros(2, 4))
    integer._graph, integer._captured = graph, graph.captured  # type: ignore[assignment]
    with torch.inference_mode():
        assert torch.equal(integer(x), reference(x))
        assert graph.count == 2, "the fifth image is launched kernel by kernel"
        monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
        assert torch.equal(integer(x), reference(x))
    assert graph.count == 2, "a graph cannot be replayed into another"


def test_work_counts_what_a_layer_needs_and_no_padding() -> None:
    """conv1 of ResNet-18 at 32x32: 16x16 pixels, 64 channels, 7x7x3 taps."""
    torch.manual_seed(0)
    x = numbers(1, 3, 32, 32)
    model = torchvision.models.resnet18().eval()
    integer = lower_triton(quantize_static(model, x), x)
    first = integer.convolutions()[0]
    assert first.work(2) == (
        2 * 256 * 64 * 147, 2 * 3 * 32 * 32 + 64 * 147 + 2 * 256 * 64,
    )  # fmt: skip
    assert sum(launch.work(1)[0] for launch in integer.convolutions()) == count_macs(model, x)


def test_every_layer_has_tiles_to_try() -> None:
    for rows in (1, 49, 3_000, 10**6):
        for channels, runs, length in ((10, 1, 512), (64, 7, 28), (512, 3, 1536)):
            found = candidates(rows, channels, runs, length)
            assert found
            assert all(c.block_k < 2 * max(length, 32) for c in found)
    assert {c.splits for c in candidates(49, 512, 3, 1536)} > {1}
    assert {c.splits for c in candidates(10**6, 512, 3, 1536)} == {1}


def test_the_fastest_tile_that_fits_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock is made up: larger tiles are faster, the largest does not fit."""
    import triton.testing
    from triton.runtime.errors import OutOfResources

    torch.manual_seed(0)
    x = images(2)
    layers = nn.Conv2d(3, 64, 3), nn.ReLU(), nn.Conv2d(64, 64, 3), nn.Flatten(), nn.Linear(1024, 4)
    integer = lower_triton(quantize_static(nn.Sequential(*layers).eval(), x), x)
    launch = integer.convolutions()[1]
    tried = sorted(launch.candidates(len(x)), key=lambda c: (c.block_m, c.block_n, c.splits))
    assert len(tried) > 2

    def bench(work, rep: int, return_mode: str) -> float:
        if launch.config == tried[-1]:
            raise OutOfResources(1, 0, "shared memory")
        work()
        return 10.0 - tried.index(launch.config)

    monkeypatch.setattr(triton.testing, "do_bench_cudagraph", bench)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    with torch.inference_mode():
        wanted = integer(x)
        tune(launch, x, wanted.clone())
        assert launch.config == tried[-2]
        assert torch.equal(integer(x), wanted)
    assert set(launch._packed) == {tried[-2].block_k}, "what others held is given back"


def test_what_it_cannot_run_is_refused() -> None:
    x = images()
    integer = lower_triton(quantize_static(residual(), x), x)
    with pytest.raises(CompressionError, match=r"made for inputs \(N, 3, .*found \(2, 3, 5, 5\)"):
        integer(numbers(2, 3, 5, 5))
    with pytest.raises(CompressionError, match=r"on cpu, found \(2, 3, 8, 8\) on meta"):
        integer(numbers(2, 3, 8, 8).to("meta"))
    model = nn.Sequential(
        nn.ConvTranspose2d(3, 6, 3, groups=3), nn.ReLU(), nn.Flatten(), nn.Linear(600, 2)
    )
    reference = quantize_static(model.eval(), x)
    assert isinstance(reference.network.get_submodule("0"), q.QuantizedLayer)
    with pytest.raises(UnsupportedTypeError, match=r"triton executor has no kernel for 0 "):
        lower_triton(reference, x)
