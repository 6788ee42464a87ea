"""Networks that hold images elsewhere than first between layers run on kernels all the same."""

import copy
import warnings
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from compression.explanation import explain
from compression.integer import (
    code_differences,
    deploy,
    export_onnx,
    lacking,
    lower_native,
    lower_triton,
)
from compression.integer.batch_axis import images_first
from compression.quantization import StaticQuantizedModel, quantize_static
from tests.support.interpreter import lacking_interpreter
from tests.support.nets import images as small_images
from tests.support.nets import residual
from tests.support.tokens_first import NETS, images

# executor: (bound on the share of the outputs' norm, reason)
TOLERANCES = {
    "native": (0.0, "the same integers, and the same operations on floats in the same order"),
    "onednn": (0.05, "a tie rounds to either side"),
    "onnxruntime": (0.1, "a tie rounds to either side; its softmax is in float32"),
    "openvino": (0.1, "it multiplies by a reciprocal scale; its softmax is in float32"),
}


def made(name: str) -> StaticQuantizedModel:
    return quantize_static(NETS[name]().eval(), images(8))


@pytest.mark.parametrize("executor", TOLERANCES)
@pytest.mark.parametrize("name", NETS)
@torch.no_grad()
def test_an_executor_gives_the_reference(name: str, executor: str) -> None:
    if reason := lacking(executor):
        pytest.skip(reason)
    reference = made(name)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        deployed = deploy(reference, images(), executor=executor)
    assert type(deployed) is not StaticQuantizedModel
    for count in (4, 1, 5):
        wanted = reference(images(count))
        bound, _ = TOLERANCES[executor]
        assert (deployed(images(count)) - wanted).norm() <= bound * wanted.norm()


@pytest.mark.skipif(bool(lacking_interpreter()), reason=lacking_interpreter())
@torch.inference_mode()
def test_triton_gives_the_codes_of_the_reference() -> None:
    reference = images_first(made("places"), images(2))
    differences = code_differences(
        reference, lower_triton(reference, images(2), keep=True), images(2)
    )
    assert set(differences.values()) == {(0, 0.0)}
    assert len(differences) > 10


@pytest.mark.parametrize("name", NETS)
@torch.no_grad()
def test_the_network_stays_and_gives_the_same(name: str) -> None:
    reference = made(name)
    before = copy.deepcopy(reference.state_dict())
    code = reference.network.code
    turned = images_first(reference, images())
    assert turned is not reference
    for count in (1, 3):
        assert torch.equal(turned(images(count)), reference(images(count)))
    assert reference.network.code == code
    assert all(torch.equal(value, before[key]) for key, value in reference.state_dict().items())
    assert images_first(turned, images()) is turned


@pytest.mark.skipif(lacking("native") is not None, reason=str(lacking("native")))
def test_the_moves_cost_no_step() -> None:
    """They compose to none: as many steps as the same network with images first takes."""

    class Usual(nn.Module):
        def __init__(self, net: nn.Module) -> None:
            super().__init__()
            self.net = net
            for layer in net.encoder.layers:  # type: ignore[union-attr, operator]
                layer.self_attn.batch_first = True

        def forward(self, x: Tensor) -> Tensor:
            net = self.net
            tokens = net.patches(x).flatten(2).permute(0, 2, 1)  # type: ignore[operator]
            found: Tensor = net.head(net.norm(net.encoder(tokens).mean(1)))  # type: ignore[operator]
            return found

    usual = quantize_static(Usual(NETS["mean"]()).eval(), images(8))
    turned = images_first(made("mean"), images())
    steps = [len(lower_native(net, images())._steps) for net in (usual, turned)]
    assert steps[0] == steps[1]
    assert torch.equal(usual(images()), made("mean")(images())), "the same network"


def test_networks_with_images_first_are_left_alone() -> None:
    reference = quantize_static(residual(), small_images())
    assert images_first(reference, small_images()) is reference
    assert images_first(reference, torch.zeros(1, 9, 3, 3)) is reference, "executors say why"


def test_a_normalization_over_the_images_is_refused() -> None:
    class Across(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.norm, self.b = nn.Linear(6, 4), nn.LayerNorm([4]), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            found: Tensor = self.b(self.norm(self.a(x).transpose(0, 1)).transpose(0, 1))
            return found

    across = quantize_static(Across().eval(), torch.randn(4, 6))
    with pytest.warns(RuntimeWarning, match="the batch is fixed at"):
        assert deploy(across, torch.randn(4, 6)) is across


def test_explain_and_export_see_it_too(tmp_path: Path) -> None:
    explained = explain(NETS["mean"]().eval(), images())
    executors = {layer.executor for layer in explained.layers if layer.name.startswith("encoder")}
    assert executors == {"native"} if not lacking("native") else executors != {"reference"}
    pytest.importorskip("onnx", reason="the file is written by onnx")
    assert export_onnx(made("mean"), tmp_path / "net.onnx", images()) > 0
