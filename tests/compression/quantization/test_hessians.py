"""Networks whose weights are rounded by GPTQ: static INT8 and weights of few bits."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import mobilenet_v3_small, shufflenet_v2_x0_5

from compression import deploy, left_out, quantize_static, quantize_weights, save
from compression.errors import CompressionError
from compression.quantization import StaticQuantizedModel, hessians
from compression.quantization.layer import QuantizedLayer
from tests.support.compared import decibels
from tests.support.nets import images, residual

# what: (bound in dB, reason)
TOLERANCES = {
    "weights": (0.1, "clips of noise gain 0.2, networks of correlated inputs 2 and more"),
    "static": (-0.1, "activations err more than weights do, and their errors fall either way"),
}
"""What GPTQ adds at least to the signal to noise of outputs."""
LARGE = 10_000
"""Weights of a network whose codes outweigh the tables that they are coded by."""


def rows() -> nn.Module:
    return nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4)).eval()


def encoder() -> nn.Module:
    layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True, norm_first=True)
    return nn.Sequential(
        nn.Linear(16, 32), nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    )


def volumes() -> nn.Module:
    return nn.Sequential(
        nn.Conv3d(2, 12, 3, padding=1), nn.ReLU(), nn.ConvTranspose3d(12, 6, 2, 2), nn.ReLU(),
        nn.Conv3d(6, 4, 1),
    )  # fmt: skip


def signals() -> nn.Module:
    return nn.Sequential(
        nn.Conv1d(3, 16, 5, 2), nn.ReLU(), nn.Conv1d(16, 16, 3, groups=4), nn.ReLU(),
        nn.ConvTranspose1d(16, 8, 4, 2, groups=2), nn.ReLU(), nn.Conv1d(8, 5, 1),
    )  # fmt: skip


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "rows": (rows, (256, 16)),
    "residual": (residual, (16, 3, 16, 16)),
    "encoder": (encoder, (32, 12, 16)),
    "clips": (volumes, (8, 2, 5, 6, 7)),
    "signals": (signals, (32, 3, 40)),
    "mobilenet_v3_small": (lambda: mobilenet_v3_small(num_classes=10), (32, 3, 32, 32)),
    "shufflenet_v2_x0_5": (lambda: shufflenet_v2_x0_5(num_classes=10), (32, 3, 32, 32)),
}


@pytest.fixture(params=NETWORKS)
def case(request: pytest.FixtureRequest) -> tuple[nn.Module, Tensor, Tensor]:
    """Return a network, inputs to calibrate on and others of the same kind."""
    make, shape = NETWORKS[request.param]
    torch.manual_seed(0)
    network = make().eval()
    common = torch.randn(shape[1:])  # inputs are alike, as images are
    calibration, others = (common + torch.randn(shape) / 2 for _ in range(2))
    return network, calibration, others


@pytest.mark.parametrize("group_size", [None, 16])
@pytest.mark.parametrize("num_bits", [3, 8])
def test_weights_of_few_bits_lose_less(
    case: tuple[nn.Module, Tensor, Tensor], num_bits: int, group_size: int | None
) -> None:
    network, calibration, others = case
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    nearest, ours = (
        quantize_weights(network, num_bits=num_bits, group_size=group_size, calibration=given)
        for given in (None, list(calibration.split(8)))
    )
    with torch.no_grad():
        wanted = network(others)
        gained = decibels(wanted, ours(others)) - decibels(wanted, nearest(others))
    assert gained > TOLERANCES["weights"][0]
    assert left_out(ours) == left_out(nearest)
    assert all(tensor.equal(before[name]) for name, tensor in network.state_dict().items())
    scales = ([t for n, t in m.state_dict().items() if "scale" in n] for m in (nearest, ours))
    assert all(a.allclose(b, rtol=1e-6) for a, b in zip(*scales, strict=True))
    deploy(ours, others)  # compares each kernel with its layer


def test_static_int8_loses_no_more(case: tuple[nn.Module, Tensor, Tensor]) -> None:
    network, calibration, others = case
    nearest, ours = (
        quantize_static(network, calibration, rounding=rounding)  # type: ignore[arg-type]
        for rounding in ("nearest", "gptq")
    )
    with torch.no_grad():
        wanted = network(others)
        gained = decibels(wanted, ours(others)) - decibels(wanted, nearest(others))
        assert gained > TOLERANCES["static"][0]
    differ = [a.codes.ne(b.codes).any() for a, b in zip(coded(nearest), coded(ours), strict=True)]
    assert sum(differ) > len(differ) / 2


def test_biases_are_corrected_by_the_errors_that_are_left() -> None:
    torch.manual_seed(0)
    network, x = rows(), torch.randn(64, 16) + torch.randn(16)
    with torch.no_grad():
        wanted = network(x)
        corrected = quantize_static(network, x, rounding="gptq", bias_correction=True)
        shifts = (
            (net(x) - wanted).mean(0).norm() for net in (corrected, quantize_static(network, x))
        )
        assert next(shifts) < next(shifts)


@pytest.mark.parametrize(("weight_bits", "rounding"), [(2, "gptq"), (3, "nearest"), (5, "gptq")])
def test_int8_of_few_bits_has_few_codes(
    case: tuple[nn.Module, Tensor, Tensor], weight_bits: int, rounding: Any, tmp_path: Path
) -> None:
    network, calibration, others = case
    small = quantize_static(
        network, calibration[:8], weight_bits=weight_bits, rounding=rounding, bias_correction=True
    )
    for layer in coded(small):
        if layer.codes.numel() > len(layer.codes):  # a ChannelScale has a weight per channel
            assert len(layer.codes.unique()) <= 2**weight_bits - 1
            assert layer.codes.abs().max() == 127
    with torch.no_grad():
        assert deploy(small, others[:2])(others[:2]).equal(small(others[:2]))
    if sum(layer.codes.numel() for layer in coded(small)) < LARGE:
        return
    whole = quantize_static(network, calibration[:8])
    sizes = (save(net, tmp_path / "net", entropy_coded=True) for net in (small, whole))
    assert next(sizes) < next(sizes)


def coded(network: StaticQuantizedModel) -> list[QuantizedLayer]:
    return [m for m in network.modules() if isinstance(m, QuantizedLayer)]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_static_codes_are_those_of_gptq(precision: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the network is built of is rounded again, to the same codes."""
    found: list[Tensor] = []
    plain = hessians._codes

    def noted(*args: Any) -> Tensor:
        found.append(plain(*args))
        return found[-1]

    monkeypatch.setattr(hessians, "_codes", noted)
    torch.manual_seed(0)
    network = quantize_static(residual(), images(8), rounding="gptq", precision=precision)
    layers = coded(network)
    assert len(found) == len(layers) == 3
    assert all(codes.equal(layer.codes) for codes, layer in zip(found, layers, strict=True))


def test_a_wide_filter_is_taken_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    network, x = rows().eval(), torch.randn(64, 16) + torch.randn(16)
    with torch.no_grad():
        wanted = network(x)
        whole = quantize_weights(network, num_bits=3, calibration=x)(x)
        monkeypatch.setattr(hessians, "MOST_COLUMNS", 5)
        parts = quantize_weights(network, num_bits=3, calibration=x)(x)
        nearest = quantize_weights(network, num_bits=3)(x)
    assert decibels(wanted, nearest) < decibels(wanted, parts) < decibels(wanted, whole)


def test_a_layer_that_is_kept_keeps_its_weights() -> None:
    network, x = rows().eval(), torch.randn(32, 16)
    first = next(name for name, m in network.named_modules() if isinstance(m, nn.Linear))
    small = quantize_weights(network, num_bits=3, calibration=x, keep=(first,))
    assert small.get_submodule(first).weight.equal(network.get_submodule(first).weight)  # type: ignore[operator]


def test_tied_layers_have_one_rounding() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.there, self.back = nn.Linear(16, 16), nn.Linear(16, 16)
            self.back.weight = self.there.weight

        def forward(self, x: Tensor) -> Tensor:
            return self.back(torch.relu(self.there(x)))  # type: ignore[no-any-return]

    torch.manual_seed(0)
    network, x = Tied().eval(), torch.randn(64, 16) + torch.randn(16)
    ours, nearest = (quantize_weights(network, num_bits=3, calibration=c) for c in (x, None))
    assert ours.there.codes.equal(ours.back.codes)  # type: ignore[operator, union-attr]
    with torch.no_grad():
        assert decibels(network(x), ours(x)) > decibels(network(x), nearest(x))


def test_what_no_call_reaches_is_rounded_to_the_nearest() -> None:
    class Unused(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.unused = nn.Linear(16, 4), nn.Linear(16, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.used(input=x)  # type: ignore[no-any-return]

    network, x = Unused().eval(), torch.randn(64, 16) + torch.randn(16)
    ours, nearest = (quantize_weights(network, num_bits=3, calibration=c) for c in (x, None))
    assert ours.unused.codes.equal(nearest.unused.codes)  # type: ignore[operator, union-attr]
    assert not ours.used.codes.equal(nearest.used.codes)  # type: ignore[operator, union-attr]


@pytest.mark.parametrize(
    ("calibration", "message"),
    [
        (torch.full((4, 16), torch.nan), "its inputs in calibration are NaN or infinite"),
        (torch.zeros(4, 15), r"calibration: batch 1 of shape \(4, 15\) fails at"),
        ([], "the calibration set is empty"),
        ("images", "batch 1: expected a tensor"),
    ],
)
def test_bad_calibration_is_named(calibration: Any, message: str) -> None:
    with pytest.raises(CompressionError, match=message):
        quantize_weights(rows(), num_bits=4, calibration=calibration)


def test_a_group_size_is_checked() -> None:
    with pytest.raises(CompressionError, match="group_size must be at least 1, found 0"):
        quantize_weights(rows(), num_bits=4, group_size=0, calibration=torch.randn(4, 16))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rounding": "floor"}, "rounding must be nearest or gptq, found 'floor'"),
        ({"weight_bits": 1}, "weight_bits must be a whole number from 2 to 8, found 1"),
        ({"weight_bits": 4.0}, "weight_bits must be a whole number from 2 to 8, found 4.0"),
    ],
)
def test_bad_options_are_named_before_calibration(options: Any, message: str) -> None:
    with pytest.raises(CompressionError, match=message):
        quantize_static(rows(), iter([]), **options)
