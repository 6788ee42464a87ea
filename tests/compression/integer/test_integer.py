from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn

from benchmarks.baseline.networks import uneven_norms
from benchmarks.machine.kernels import kernels_of
from compression.errors import UnsupportedTypeError
from compression.integer import (
    IntegerModel,
    code_differences,
    deploy,
    export_onnx,
    has_integer_kernels,
    lower_onednn,
)
from compression.integer.onnx.engines import compile_onnxruntime
from compression.quantization import StaticQuantizedModel, quantize_static
from compression.quantization import modules as q
from tests.support.nets import images, mlp, residual

NETWORKS = ("resnet18", "resnet50", "vgg11_bn", "mobilenet_v2", "densenet121")
# what: (bound, reason)
TOLERANCES = {
    "code": (1, "a tie that float32 and the kernel's float32 round to either side"),
    "outputs": (0.05, "such a tie moves the codes of the layers behind it"),
    "different codes": (1e-3, "how often such a tie may be met"),
}


def network(name: str) -> Any:
    torch.manual_seed(0)
    model: Any = getattr(torchvision.models, name)(num_classes=10).eval()
    if name == "vgg11_bn":  # its 100 million weights of a linear layer say nothing new
        model.classifier = nn.Sequential(nn.Linear(25_088, 32), nn.ReLU(), nn.Linear(32, 10))
    return uneven_norms(model)


def inputs(size: int = 32, count: int = 2) -> Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(1))


@cache
def reference_of(name: str) -> StaticQuantizedModel:
    """Return an INT8 network of inputs(), made once."""
    return quantize_static(network(name), inputs())


pytestmark = pytest.mark.skipif(
    not has_integer_kernels("cpu"), reason="the CPU has neither VNNI nor AMX"
)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_layer_gives_the_codes_of_the_reference(name: str) -> None:
    x, reference = inputs(), reference_of(name)
    integer = lower_onednn(reference, x)
    differences = code_differences(reference, integer, x)
    assert len(differences) > 10
    for layer, (largest, share) in differences.items():
        assert largest <= TOLERANCES["code"][0], layer
        assert share <= TOLERANCES["different codes"][0], layer
    assert integer.stayed == ()


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2"])
def test_integer_kernels_run_one_for_each_layer(name: str) -> None:
    x, reference = inputs(count=1), reference_of(name)
    layers = sum(isinstance(m, q.QuantizedLayer) for m in reference.modules())
    ran = kernels_of(lower_onednn(reference, x), x)
    assert ran["onednn::qconv2d_pointwise"] + ran["onednn::qlinear_pointwise"] == layers
    assert not [name for name in kernels_of(reference, x) if name.startswith("onednn")]


def test_another_batch_size_and_a_channels_last_input_give_the_same() -> None:
    x = images(6)
    integer = lower_onednn(quantize_static(residual(), x), x)
    with torch.inference_mode():
        whole = integer(x)
        assert torch.allclose(integer(x[:1]), whole[:1], atol=1e-6)
        again = integer(x.contiguous(memory_format=torch.channels_last))
        assert torch.equal(again, whole)
        assert torch.equal(integer(x), whole), "the residual's memory is its own"


def test_a_residual_that_is_read_again_is_kept() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = (nn.Conv2d(3, 3, 1) for _ in "abc")

        def forward(self, x: Tensor) -> Tensor:
            y = self.a(x)
            return torch.flatten(self.c(y + self.b(y)) + y, 1)

    torch.manual_seed(0)
    x = images()
    reference = quantize_static(Twice().eval(), x)
    with torch.inference_mode():
        wanted, found = reference(x), lower_onednn(reference, x)(x)
    assert torch.allclose(wanted, found, atol=0.05)


def test_deploy_takes_what_it_can_and_leaves_the_rest() -> None:
    model, x = residual(), images()
    assert isinstance(deploy(quantize_static(model, x), x, executor="onednn"), IntegerModel)
    assert deploy(model, x) is model


def test_a_layer_without_a_kernel_is_named_or_stays_in_float() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.ConvTranspose2d(3, 5, 3), nn.ReLU(), nn.Flatten(), nn.Linear(500, 2))
    reference = quantize_static(model, images())
    with pytest.raises(UnsupportedTypeError, match=r"no integer kernel for 0 \(QuantizedLayer\)"):
        lower_onednn(reference, images())
    integer = lower_onednn(reference, images(), fallback=True)
    assert integer.stayed == ("0",)
    with torch.inference_mode():
        assert torch.allclose(reference(images()), integer(images()), atol=1e-5)


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "densenet121", "residual", "mlp"])
def test_onnx_runtime_gives_the_reference_outputs(tmp_path: Path, name: str) -> None:
    pytest.importorskip("onnxruntime", reason="the extra dev installs it")
    x = inputs() if name in NETWORKS else images()
    small = {"residual": residual, "mlp": mlp}
    reference = quantize_static(small[name](), x) if name in small else reference_of(name)
    path = tmp_path / "model.onnx"
    assert export_onnx(reference, path, x) == path.stat().st_size
    with torch.inference_mode():
        wanted = reference(x)
    found = compile_onnxruntime(path, x.shape, num_threads=1)(x)
    assert (wanted - found).abs().max() <= TOLERANCES["outputs"][0] * wanted.abs().max()
