"""Layers on codes in networks of other people: parents, ties, dtypes, shapes, files."""

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compression.errors import CompressionError
from compression.layers import left_out
from compression.quantization import (
    quantize_dynamic,
    quantize_weights,
)
from tests.support.nets import residual

# what: (largest relative error, reason)
TOLERANCES = {
    "8 bits": (0.03, "half a step of 127 for each weight, of 255 for each activation; some layers"),
    torch.float32: (0.03, "that of 8 bits"),
    torch.float64: (0.03, "that of 8 bits"),
    torch.bfloat16: (0.04, "and 2^-9 of each value"),
    torch.float16: (0.03, "and 2^-12 of each value"),
}
TECHNIQUES: dict[str, Callable[[nn.Module], nn.Module]] = {
    "dynamic": quantize_dynamic,
    "weights": quantize_weights,
}
MASK = torch.tensor([[False] * 4 + [True], [False] * 5])


class Tied(nn.Module):
    """The output reads the weight of a layer that is called, too."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(16, 16), nn.Linear(16, 16)
        self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.second(input=F.relu(self.first(x)))
        return F.linear(hidden, self.first.weight.t().contiguous(), self.second.bias)


def shared() -> nn.Module:
    layer = nn.Linear(16, 16)
    return nn.Sequential(layer, nn.ReLU(), layer, nn.Linear(16, 4))


def encoder(**options) -> nn.Module:
    return nn.TransformerEncoderLayer(16, 4, 32, **options)


def floats(outputs: object) -> Iterator[Tensor]:
    if isinstance(outputs, Tensor):
        yield outputs
    elif isinstance(outputs, tuple):
        for part in outputs:
            yield from floats(part)


def relative_error(
    model: nn.Module, found: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]
) -> float:
    wide = [t.double() if t.is_floating_point() else t for t in inputs]
    right = torch.cat([t.flatten() for t in floats(copy.deepcopy(model).double()(*wide, **named))])
    outputs = list(floats(found(*inputs, **named)))
    assert {t.dtype for t in outputs} == {t.dtype for t in floats(model(*inputs, **named))}
    error: Tensor = (torch.cat([t.flatten() for t in outputs]).double() - right).norm()
    return float((error / right.norm()).detach())


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], dict[str, Any]]] = {
    "encoder": (lambda: encoder(batch_first=True), (2, 5, 16), {}),
    "encoder, steps first": (encoder, (5, 2, 16), {}),
    "encoder, gelu": (
        lambda: encoder(batch_first=True, activation="gelu", norm_first=True),
        (2, 5, 16),
        {},
    ),
    "encoder, padding": (
        lambda: encoder(batch_first=True),
        (2, 5, 16),
        {"src_key_padding_mask": MASK},
    ),
    "encoders, padding": (
        lambda: nn.TransformerEncoder(encoder(batch_first=True), 2),
        (2, 5, 16),
        {"src_key_padding_mask": MASK},
    ),
    "encoder, causal": (
        lambda: encoder(batch_first=True),
        (2, 5, 16),
        {"src_mask": torch.ones(5, 5).triu(1).bool()},
    ),
    "tied": (Tied, (4, 16), {}),
    "shared": (shared, (4, 16), {}),
    "a vector": (shared, (16,), {}),
    "a matrix of rows": (shared, (2, 3, 16), {}),
    "images of rows": (shared, (2, 3, 2, 16), {}),
    "one column": (lambda: nn.Sequential(nn.Linear(1, 9), nn.Linear(9, 1)), (5, 1), {}),
}


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize("technique", TECHNIQUES)
@pytest.mark.parametrize("name", NETWORKS)
def test_outputs_are_right_to_the_error_of_the_codes(name: str, technique: str, grad: bool) -> None:
    make, shape, named = NETWORKS[name]
    torch.manual_seed(0)
    model, x = make().eval(), torch.randn(shape)
    quantized = TECHNIQUES[technique](model)
    with torch.set_grad_enabled(grad):
        assert relative_error(model, quantized, (x,), named) < TOLERANCES["8 bits"][0]


@pytest.mark.parametrize("technique", TECHNIQUES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@torch.no_grad()
def test_the_networks_dtype_is_kept(dtype: torch.dtype, technique: str) -> None:
    torch.manual_seed(0)
    model = encoder(batch_first=True).eval().to(dtype)
    quantized, x = TECHNIQUES[technique](model), torch.randn(2, 5, 16).to(dtype)
    assert relative_error(model, quantized, (x,), {}) < TOLERANCES[dtype][0]
    later = TECHNIQUES[technique](copy.deepcopy(model).float()).to(dtype)
    assert relative_error(model, later, (x,), {}) < TOLERANCES[dtype][0]
    assert {t.dtype for n, t in later.named_buffers() if n.endswith("scale")} == {torch.float32}


@pytest.mark.parametrize("technique", TECHNIQUES)
def test_an_empty_batch_gives_an_empty_batch(technique: str) -> None:
    quantized = TECHNIQUES[technique](shared())
    assert quantized(torch.zeros(0, 16)).shape == (0, 4)
    assert quantized(torch.zeros(2, 0, 16)).shape == (2, 0, 4)


CONVOLUTIONS = {
    "transposed": (
        nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1),
        (2, 4, 5, 5),
    ),
    "grouped transposed": (nn.ConvTranspose2d(4, 6, 3, groups=2, dilation=2), (2, 4, 5, 5)),
    "transposed 1-d": (nn.ConvTranspose1d(4, 6, 3), (2, 4, 5)),
    "transposed 3-d": (nn.ConvTranspose3d(4, 6, 3, bias=False), (2, 4, 3, 3, 3)),
    "reflected": (nn.Conv2d(4, 6, 3, padding=1, padding_mode="reflect"), (2, 4, 5, 5)),
    "same": (nn.Conv1d(4, 6, 4, padding="same", padding_mode="circular"), (2, 4, 9)),
    "one image": (nn.Conv3d(4, 6, 2, groups=2), (4, 3, 3, 3)),
}


@pytest.mark.parametrize("group_size", [None, 5])
@pytest.mark.parametrize("name", CONVOLUTIONS)
@torch.no_grad()
def test_every_convolution_has_codes(name: str, group_size: int | None) -> None:
    layer, shape = CONVOLUTIONS[name]
    model = nn.Sequential(layer)
    quantized = quantize_weights(model, group_size=group_size)
    assert relative_error(model, quantized, (torch.randn(shape),), {}) < TOLERANCES["8 bits"][0]
    assert quantized[0].codes.shape[0] == 6


@torch.no_grad()
def test_a_small_filter_of_a_transposed_convolution_keeps_its_precision() -> None:
    layer = nn.ConvTranspose2d(4, 6, 3, bias=False)
    layer.weight.mul_(torch.logspace(-6, 0, 6)[:, None, None])
    found = quantize_weights(layer).weight
    errors = (found - layer.weight).transpose(0, 1).flatten(1).norm(dim=1)
    assert (errors / layer.weight.transpose(0, 1).flatten(1).norm(dim=1)).max() < 0.02


@torch.no_grad()
def test_a_transposed_convolution_takes_an_output_size() -> None:
    layer, x = nn.ConvTranspose2d(4, 6, 3, stride=2), torch.randn(1, 4, 5, 5)
    assert quantize_weights(layer)(x, [12, 12]).shape == layer(x, [12, 12]).shape == (1, 6, 12, 12)


class Standardized(nn.Conv2d):
    def forward(self, input: Tensor) -> Tensor:
        return F.conv2d(input, self.weight - self.weight.mean(), self.bias)


@pytest.mark.parametrize("technique", TECHNIQUES)
def test_a_layer_that_computes_something_else_stays(technique: str) -> None:
    hooked = nn.Linear(4, 4)
    hooked.register_forward_hook(lambda _, __, outputs: 2 * outputs)
    patched = nn.Linear(4, 4)
    patched.forward = lambda x: x  # type: ignore[method-assign]
    model = nn.Sequential(
        Standardized(3, 4, 1), nn.Flatten(), hooked, patched, nn.Linear(4, 4)
    ).eval()
    quantized, x = TECHNIQUES[technique](model), torch.randn(2, 3, 1, 1)
    missed = left_out(quantized)
    assert set(missed) == {"0.weight", "2.weight", "3.weight"}
    assert "Standardized" in missed["0.weight"]
    assert "hooks" in missed["2.weight"]
    with torch.no_grad():
        assert relative_error(model, quantized, (x,), {}) < TOLERANCES["8 bits"][0]
    with pytest.raises(CompressionError, match="Standardized"):
        TECHNIQUES[technique](model[:2])


def test_a_layer_that_a_plain_list_holds_stays() -> None:
    class Listed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)
            self.order = [self.a]

        def forward(self, x: Tensor) -> Tensor:
            outputs: Tensor = self.b(self.order[0](x))
            return outputs

    quantized = quantize_weights(Listed())
    assert left_out(quantized) == {
        "a.weight": "the plain attribute order holds it too; use nn.ModuleList"
    }
    assert quantized.order[0] is quantized.a


def test_what_stays_in_float_is_listed() -> None:
    for technique in TECHNIQUES.values():
        assert left_out(technique(encoder())) == {}
    assert set(left_out(quantize_dynamic(residual()))) == {"conv1.weight", "conv2.weight"}


def test_a_module_of_two_names_stays_one_and_ties_share_their_codes() -> None:
    for technique in TECHNIQUES.values():
        quantized = technique(shared())
        assert quantized[0] is quantized[2]
        assert not isinstance(quantized[0], nn.Linear)
        tied = technique(Tied())
        assert tied.first.codes is tied.second.codes


def test_parents_may_read_what_the_layer_had() -> None:
    for technique in TECHNIQUES.values():
        layer = nn.Linear(6, 4)
        replaced: Any = technique(layer)
        assert (replaced.in_features, replaced.out_features) == (6, 4)
        assert torch.equal(replaced.bias, layer.bias)
        assert replaced.weight.shape == layer.weight.shape
    assert quantize_weights(nn.Conv2d(3, 4, 3, stride=2)).stride == (2, 2)
    with pytest.raises(AttributeError, match="absent"):
        _ = quantize_weights(nn.Conv2d(3, 4, 3)).absent


def test_the_replaced_layer_itself_is_untouched() -> None:
    model = nn.Sequential(nn.Linear(4, 4))
    for technique in TECHNIQUES.values():
        technique(model)
        assert model[0].weight.shape == (4, 4)
