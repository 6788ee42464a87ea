"""Convolutions and attention on the tile registers of AMX: to the bit what VNNI gives."""

from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from compression.integer import lacking, lower_native
from compression.integer.native import library
from compression.quantization import quantize_static
from tests.support.integer_nets import numbers
from tests.support.strategies import examples
from tests.support.tricky_nets import Net

pytestmark = pytest.mark.skipif(
    lacking("native") is not None or not library().use_amx(1),
    reason="needs a CPU with AMX's int8 products, which Linux lets this process use",
)


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
    library().use_amx(1)


def on(amx: bool, integer: nn.Module, x: Tensor) -> Tensor:
    assert library().use_amx(amx) == amx
    return integer(x)  # type: ignore[no-any-return]


@st.composite
def convolutions(draw: st.DrawFn) -> tuple[nn.Module, Tensor]:
    """Draw a convolution after another one, whose border may hold any code, and images."""
    groups = draw(st.sampled_from([1, 1, 1, 2, 5]))
    inputs, outputs = (
        groups * draw(st.sampled_from([4, 16, 18, 24, 40, 64, 66, 72, 128])) for _ in range(2)
    )
    kernel = draw(st.sampled_from([1, 2, 3, 5]))
    options = {
        "stride": draw(st.integers(1, 2)),
        "padding": draw(st.integers(0, kernel - 1)) if kernel % 2 else 0,
        "dilation": draw(st.sampled_from([1, 1, 2])),
        "groups": groups,
        "bias": draw(st.booleans()),
    }
    torch.manual_seed(draw(st.integers(0, 99)))
    before = [nn.Conv2d(3, inputs, 1), draw(st.sampled_from([nn.ReLU(), nn.SiLU()]))]
    network = nn.Sequential(*before, nn.Conv2d(inputs, outputs, kernel, **options), nn.Flatten())
    side = draw(st.integers(kernel * 2 - 1, 33))
    return network.eval(), numbers(draw(st.sampled_from([1, 2, 3, 5])), 3, side, side + 2)


@settings(max_examples=examples(1))
@given(convolutions(), st.integers(1, 2))
def test_a_drawn_convolution_is_that_of_vnni(case: tuple[nn.Module, Tensor], threads: int) -> None:
    model, x = case
    reference = quantize_static(model, x)
    torch.set_num_threads(threads)
    integer = lower_native(reference, x)
    with torch.inference_mode():
        found = on(True, integer, x)
        assert torch.equal(found, on(False, integer, x))
        assert torch.equal(found, reference(x))


@st.composite
def attention(draw: st.DrawFn) -> tuple[nn.Module, Tensor]:
    """Draw an encoder's layer of any heads, with or without a mask, and tokens that fill no tile."""
    heads, depth = draw(st.integers(1, 3)), draw(st.sampled_from([1, 4, 7, 16, 32, 64, 65, 130]))
    tokens = draw(st.sampled_from([1, 2, 15, 16, 17, 49, 64, 65, 130]))
    torch.manual_seed(draw(st.integers(0, 99)))
    mask = draw(st.sampled_from([None, -1e9 * torch.ones(tokens, tokens).triu(1)]))
    layer = nn.TransformerEncoderLayer(heads * depth, heads, 8, batch_first=True)
    net = Net(lambda s, x: s.layer(x, src_mask=mask), layer=layer)
    return net.eval(), numbers(draw(st.integers(1, 3)), tokens, heads * depth)


@settings(max_examples=examples(0.5))
@given(attention(), st.integers(1, 2))
def test_drawn_attention_is_that_of_vnni(case: tuple[nn.Module, Tensor], threads: int) -> None:
    model, x = case
    reference = quantize_static(model, x)
    torch.set_num_threads(threads)
    integer = lower_native(reference, x)
    with torch.inference_mode():
        for images in (x, 9 * x):
            found = on(True, integer, images)
            assert torch.equal(found, on(False, integer, images))
            assert torch.equal(found, reference(images))


def test_torchs_own_kernels_find_the_registers_as_they_set_them() -> None:
    """oneDNN configures them, too, and looks first whether it has to."""
    torch.manual_seed(0)
    model, x = (
        nn.Sequential(nn.Conv2d(3, 64, 1), nn.Conv2d(64, 96, 3)).eval(),
        numbers(4, 3, 16, 16),
    )
    reference = quantize_static(model, x)
    images = torch.randn(64, 512, dtype=torch.bfloat16)
    own, linear = lower_native(reference, x), nn.Linear(512, 512, dtype=torch.bfloat16)
    with torch.inference_mode():
        wanted = own(x), linear(images)
        for _ in range(20):
            assert torch.equal(own(x), wanted[0])
            assert torch.equal(linear(images), wanted[1])
