"""The native executor: bit for bit what the reference executor gives."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torchvision
from hypothesis import given, reject
from hypothesis import strategies as st
from torch import Tensor, nn

from benchmarks.harness.kernels import NATIVE, kernels_of
from benchmarks.networks import uneven_norms
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
from tests.nets import images, mlp, residual

pytestmark = pytest.mark.skipif(lacking("native") is not None, reason=str(lacking("native")))
WITHOUT_COMPILER = """
import sys, torch
from compression.errors import CompressionError
from compression.integer import lower_native
from compression.quantization import quantize_static
from tests.nets import images, residual
try:
    lower_native(quantize_static(residual(), images()), images())
except CompressionError as error:
    print(error)
"""


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "mobilenet_v2", "densenet121"])
def test_every_layer_of_a_network_gives_the_codes_of_the_reference(name: str) -> None:
    torch.manual_seed(0)
    model = uneven_norms(getattr(torchvision.models, name)(num_classes=10)).eval()
    x = numbers(3, 3, 64, 64)
    reference = quantize_static(model, x)
    integer = lower_native(reference, x, keep=True)
    differences = code_differences(reference, integer, x)
    assert len(differences) > 20
    assert set(differences.values()) == {(0, 0.0)}
    with torch.inference_mode():
        assert torch.equal(integer(x), reference(x))


class Odd(nn.Module):
    """Channels, windows and borders that fill no vector; a sum and a concatenation of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 70, 3, padding=2, dilation=2)
        self.b = nn.Conv2d(70, 33, (3, 2), stride=(2, 1), padding=(1, 0))
        self.c = nn.Conv2d(33, 33, 5, padding=2, groups=33)
        self.d = nn.Conv2d(33, 33, 1)
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.mean = nn.AvgPool2d(2)
        self.head = nn.Linear(66 * 2 * 2, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.b(torch.relu(self.a(x))))
        y = nn.functional.relu6(self.c(x) + x)
        z = torch.cat([self.d(y), y], 1)
        return self.head(torch.flatten(self.mean(self.pool(torch.relu(z))), 1))


NETS: dict[str, Callable[[], tuple[nn.Module, Tensor]]] = {
    "odd": lambda: (Odd().eval(), numbers(5, 3, 16, 10)),
    "residual": lambda: (residual(), images()),
    "mlp": lambda: (mlp(), images()),
    "codes out": lambda: (nn.Sequential(nn.Linear(20, 7), nn.ReLU()).eval(), numbers(9, 20)),
}


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


@given(
    channels=st.tuples(st.integers(1, 9), st.integers(1, 70)),
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    stride=st.integers(1, 3),
    padding=st.integers(0, 1),
    dilation=st.integers(1, 2),
    positive=st.booleans(),
)
def test_any_convolution_is_the_reference(
    channels: tuple[int, int],
    size: tuple[int, int],
    kernel: tuple[int, int],
    stride: int,
    padding: int,
    dilation: int,
    positive: bool,
) -> None:
    reach = [dilation * (k - 1) + 1 for k in kernel]
    if any(n + 2 * padding < r for n, r in zip(size, reach, strict=True)):
        size = (9, 9)
    torch.manual_seed(0)
    first = nn.Conv2d(2, channels[0], 1)
    second = nn.Conv2d(*channels, kernel, stride=stride, padding=padding, dilation=dilation)
    middle = nn.ReLU() if positive else nn.Identity()  # a zero point of 0, or another
    pool = nn.AdaptiveAvgPool2d(1)
    model = nn.Sequential(first, middle, second, nn.ReLU(), pool, nn.Flatten()).eval()
    x = numbers(3, 2, *size)
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
    model = nn.Sequential(nn.ConvTranspose2d(3, 5, 3), nn.ReLU(), nn.Flatten(), nn.Linear(500, 2))
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


@pytest.mark.parametrize(
    ("compiler", "message"),
    [
        ("", "needs a C compiler: expected .* found none"),
        ("#!/bin/sh\necho no such option >&2\nexit 1\n", "cc .* failed: no such option"),
    ],
)
def test_a_machine_without_a_compiler_says_so(tmp_path: Path, compiler: str, message: str) -> None:
    if compiler:
        (tmp_path / "cc").write_text(compiler)
        (tmp_path / "cc").chmod(0o755)
    environment = {
        **os.environ, "CC": "", "PATH": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "PYTHONPATH": os.pathsep.join(sys.path),
    }  # fmt: skip
    run = subprocess.run(
        [sys.executable, "-c", WITHOUT_COMPILER],
        env=environment, cwd=Path(__file__).parents[1], capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert re.search(message, run.stdout), run.stdout
    assert not list((tmp_path / "cache").glob("*/*"))
