"""Networks whose layers alone hold codes, deployed: each layer on its kernel or in real numbers."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import compression.integer.deployment as deployment
import compression.integer.layers as lowering
from compression.errors import CompressionError, UnsupportedTypeError
from compression.integer import deploy, lacking
from compression.integer.native import native_linear
from compression.integer.native.linear import NativeLinear
from compression.quantization import CastModel, cast, quantize_dynamic, quantize_weights
from compression.storage import save
from tests.support.nets import residual
from tests.support.small_torchvision import made

needs_kernels = pytest.mark.skipif(lacking("native") is not None, reason=str(lacking("native")))
TOLERANCES = {"weights": 1e-5, "dynamic": 0.0}
"""Relative: weights are summed in another order, codes are not."""
TECHNIQUES: dict[str, Callable[..., nn.Module]] = {
    "dynamic": quantize_dynamic,
    "weights": lambda m: quantize_weights(m, num_bits=4, group_size=16),
}


class Read(nn.Module):
    """Calls one linear layer, reads the weight of another, and does both with a third."""

    def __init__(self) -> None:
        super().__init__()
        self.called, self.read, self.both = (nn.Linear(16, 16) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        x = F.linear(self.called(input=x), self.read.weight, self.read.bias)
        return F.linear(self.both(x), self.both.weight)


class Twice(nn.Module):
    """Two inputs, one of them whole numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.first, self.head = nn.Embedding(9, 8), nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor, tokens: Tensor) -> Tensor:
        return self.head(self.first(self.words(tokens)) + x)


def encoders() -> nn.Module:
    layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)
    return nn.TransformerEncoder(layer, 2)


def conv_net() -> nn.Module:
    return residual().eval()


NETWORKS: dict[str, tuple[Callable[[], nn.Module], Callable[[], tuple[Tensor, ...]], int]] = {
    "linear": (lambda: nn.Linear(16, 4), lambda: (torch.randn(3, 16),), 1),
    "convolutions": (conv_net, lambda: (torch.randn(2, 3, 8, 8),), 1),
    "read": (Read, lambda: (torch.randn(3, 16),), 2),
    "two inputs": (Twice, lambda: (torch.randn(2, 8), torch.tensor([1, 5])), 2),
    "encoders": (encoders, lambda: (torch.randn(2, 5, 16),), 12),
    "vit": (lambda: made("vit").float(), lambda: (torch.randn(2, 3, 16, 16),), 13),
}


def kernels(network: nn.Module) -> int:
    return sum(isinstance(m, NativeLinear) for m in network.modules())


@needs_kernels
@pytest.mark.parametrize("technique", TECHNIQUES)
@pytest.mark.parametrize("name", NETWORKS)
@torch.no_grad()
def test_a_deployed_network_predicts_the_same(name: str, technique: str) -> None:
    make, inputs, count = NETWORKS[name]
    torch.manual_seed(0)
    quantized, given = TECHNIQUES[technique](make().eval()), inputs()
    deployed = deploy(quantized, given if len(given) > 1 else given[0])
    assert kernels(deployed) == count
    assert kernels(quantized) == 0
    for x in (given, inputs()):
        found, wanted = deployed(*x), quantized(*x)
        assert (found - wanted).norm() <= TOLERANCES[technique] * wanted.norm()


@needs_kernels
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@torch.no_grad()
def test_nested_tensors_run_on_kernels() -> None:
    torch.manual_seed(0)
    quantized, x = quantize_dynamic(encoders().eval()), torch.randn(2, 5, 16)
    padding = torch.tensor([[False] * 5, [False] * 3 + [True] * 2])
    deployed: Any = deploy(quantized, (x, None, padding))
    assert kernels(deployed) == 12
    assert torch.equal(deployed(x, None, padding), quantized(x, None, padding))


@needs_kernels
@torch.no_grad()
def test_many_rows_of_weights_run_in_real_numbers() -> None:
    network = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 3))
    x = torch.randn(lowering.MOST_ROWS + 1, 8)
    assert kernels(deploy(quantize_weights(network), x)) == 0
    assert kernels(deploy(quantize_weights(network), x[1:])) == 2
    assert kernels(deploy(quantize_dynamic(network), x)) == 2


@torch.no_grad()
def test_convolutions_hold_the_numbers_of_their_codes() -> None:
    quantized, x = quantize_weights(residual().eval()), torch.randn(2, 3, 8, 8)
    deployed: Any = deploy(quantized, x)
    assert type(deployed.conv1) is nn.Conv2d
    assert torch.equal(deployed.conv1.weight, quantized.get_submodule("conv1").weight)
    assert not deployed.conv1.weight.requires_grad


@torch.no_grad()
def test_without_a_compiler_it_is_told_what_weights_become(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of linear and recurrent layers: convolutions are real numbers on every machine."""
    monkeypatch.setattr(deployment, "lacking", lambda _: "no compiler")
    monkeypatch.setattr(lowering, "missing", lambda: "no compiler")
    calls = (
        (Read(), torch.randn(3, 16)),
        (nn.LSTM(4, 5, batch_first=True), torch.randn(1, 2, 4)),
        (
            nn.Sequential(nn.modules.linear.NonDynamicallyQuantizableLinear(16, 4)),
            torch.randn(1, 16),
        ),
    )
    for network, x in calls:
        with pytest.warns(
            RuntimeWarning, match=r"unpack .* \(no compiler\): they are real numbers"
        ):
            deploy(quantize_weights(network.eval()), x)
    deploy(quantize_weights(nn.Conv2d(3, 8, 3).eval()), torch.randn(1, 3, 8, 8))


@torch.no_grad()
def test_without_a_compiler_weights_are_real_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lowering, "missing", lambda: "no compiler")
    x = torch.randn(3, 16)
    for technique in TECHNIQUES.values():
        quantized = technique(Read().eval())
        deployed = deploy(quantized, x)
        assert kernels(deployed) == 0
        assert torch.equal(deployed(x), quantized(x))


@torch.no_grad()
def test_half_precision_stays_as_it_is() -> None:
    x = torch.randn(3, 16)
    half = cast(quantize_weights(Read()), torch.bfloat16)
    assert deploy(half, x) is half
    assert isinstance(half, CastModel)
    network = quantize_weights(Read().bfloat16())
    deployed = deploy(network, x.bfloat16())
    assert kernels(deployed) == 0
    assert torch.equal(deployed(x.bfloat16()), network(x.bfloat16()))


@needs_kernels
@pytest.mark.parametrize("technique", TECHNIQUES)
@torch.no_grad()
def test_a_wrong_kernel_is_named_and_left_out(
    technique: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(layer: nn.Module) -> nn.Module | None:
        kernel: Any = native_linear(layer)
        if kernel is not None and kernel.out_features == 3:
            kernel.bias = kernel.bias + 0.01
        return kernel

    monkeypatch.setattr(lowering, "native_linear", wrong)
    quantized = TECHNIQUES[technique](nn.Sequential(nn.Linear(8, 4), nn.Linear(4, 3)))
    x = torch.randn(2, 8)
    with pytest.warns(RuntimeWarning, match="1 gives other numbers on its kernel"):
        deployed = deploy(quantized, x)
    assert kernels(deployed) == 1
    torch.testing.assert_close(deployed(x), quantized(x))
    assert kernels(deploy(quantized, x, verify=False)) == 2


def test_what_is_deployed_is_not_saved_and_what_is_no_example_is_refused(tmp_path: Path) -> None:
    quantized, x = quantize_dynamic(nn.Sequential(nn.Linear(8, 4))), torch.randn(2, 8)
    with pytest.raises(CompressionError, match="cannot take the example: 0:"):
        deploy(quantized, torch.randn(2, 9))
    with pytest.raises(UnsupportedTypeError, match="executor onednn runs statically quantized"):
        deploy(quantized, x, executor="onednn")
    if lacking("native") is None:
        assert kernels(deploy(quantized, x, executor="native")) == 1
        with pytest.raises(CompressionError, match="NativeDynamicLinear, of a compressed network"):
            save(deploy(quantized, x), tmp_path / "model")
