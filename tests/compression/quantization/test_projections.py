"""Attention on codes: torch's is written out, and computes what it did, to the error of the codes."""

import copy
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compression.attention import Attention
from compression.errors import CompressionError
from compression.layers import left_out
from compression.quantization import CastModel, cast, quantize_dynamic, quantize_weights
from compression.storage import load, save
from tests.support.small_torchvision import made
from tests.support.torch_attention import OPTIONS, held, inputs, masks

# what: (largest relative error, reason)
TOLERANCES = {
    "rounded": (1e-6, "codes times a float32 scale, beside the same numbers in float64"),
    "dynamic": (0.05, "half a step of 127 for each weight, of 255 for each activation; 4 layers"),
}
TECHNIQUES: dict[str, Callable[..., nn.Module]] = {
    "dynamic": quantize_dynamic,
    "weights": quantize_weights,
}
CODES = {
    f"{name}_proj.{buffer}" for name in ("q", "k", "v", "out") for buffer in ("codes", "scale")
}


def error(found: Tensor, wanted: Tensor) -> float:
    return float(((found.double() - wanted.double()).norm() / wanted.double().norm()).detach())


def in_float(network: nn.Module) -> list[nn.Module]:
    """Return the linear layers and the attention that hold a weight of their own."""
    linear = [m for m in network.modules() if isinstance(m, nn.Linear) and m.weight is not None]
    return [*linear, *(m for m in network.modules() if isinstance(m, nn.MultiheadAttention))]


def rounded(layer: nn.MultiheadAttention, quantized: Any) -> nn.MultiheadAttention:
    """Return torch's attention with the weights that the codes stand for."""
    twin = copy.deepcopy(layer)
    with torch.no_grad():
        for name in ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight"):
            if getattr(twin, name) is not None:
                getattr(twin, name).copy_(getattr(quantized, name))
        twin.out_proj.weight.copy_(quantized.out_proj.weight)
    return twin


@pytest.mark.parametrize("batched", [True, False])
@pytest.mark.parametrize("options", OPTIONS)
@torch.no_grad()
def test_weights_of_codes_give_what_torch_gives_with_them(options: str, batched: bool) -> None:
    layer = held(**OPTIONS[options])
    quantized = quantize_weights(layer, num_bits=4, group_size=3)
    wanted, given = rounded(layer, quantized), inputs(layer, batched=batched)
    assert {name for name, _ in quantized.named_buffers()} >= CODES
    for mask, weights in itertools.product(
        masks(batched=batched).values(),
        ({}, {"average_attn_weights": False}, {"need_weights": False}),
    ):
        pairs = zip(
            quantized(*given, **mask, **weights), wanted(*given, **mask, **weights), strict=True
        )
        for found, right in pairs:
            assert (found is None) == (right is None)
            assert found is None or error(found, right) < TOLERANCES["rounded"][0]


@pytest.mark.parametrize("batched", [True, False])
@pytest.mark.parametrize("options", OPTIONS)
@torch.no_grad()
def test_dynamic_projections_are_right_to_the_error_of_the_codes(
    options: str, batched: bool
) -> None:
    layer = held(**OPTIONS[options])
    quantized, given = quantize_dynamic(layer), inputs(layer, batched=batched)
    for mask in masks(batched=batched).values():
        found, wanted = quantized(*given, **mask), layer(*given, **mask)
        assert error(found[0], wanted[0]) < TOLERANCES["dynamic"][0]
        assert found[1].shape == wanted[1].shape


def transformer(**options: Any) -> nn.Module:
    return nn.Transformer(16, 4, 2, 2, 32, **options)


@pytest.mark.filterwarnings("ignore:enable_nested_tensor:UserWarning")
@pytest.mark.parametrize("technique", TECHNIQUES)
@pytest.mark.parametrize("batch_first", [True, False])
@torch.no_grad()
def test_encoders_and_decoders_have_no_float_layer(technique: str, batch_first: bool) -> None:
    torch.manual_seed(0)
    model = transformer(batch_first=batch_first).eval()
    quantized, x = TECHNIQUES[technique](model), torch.randn(5, 5, 16)
    assert left_out(quantized) == {}
    assert not in_float(quantized)
    mask = nn.Transformer.generate_square_subsequent_mask(5)
    named = {"src_mask": mask, "tgt_mask": mask, "tgt_is_causal": True}
    assert error(quantized(x, x + 1, **named), model(x, x + 1, **named)) < TOLERANCES["dynamic"][0]


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("technique", TECHNIQUES)
@torch.no_grad()
def test_nested_tensors_are_attended_row_by_row(technique: str) -> None:
    torch.manual_seed(0)
    quantized: Any = TECHNIQUES[technique](nn.MultiheadAttention(16, 4, batch_first=True))
    rows = [torch.randn(n, 16) for n in (3, 5)]
    nested = torch.nested.as_nested_tensor(rows)
    found = quantized(nested, nested, nested, need_weights=False)[0].unbind()
    for row, output in zip(rows, found, strict=True):
        wanted = quantized(row, row, row, need_weights=False)[0]
        torch.testing.assert_close(output, wanted)
    with pytest.raises(CompressionError, match="pass need_weights=False"):
        quantized(nested, nested, nested)


class Own(nn.MultiheadAttention):
    """A class of somebody's own."""


class Held(nn.Module):
    """Attention beside a linear layer."""

    def __init__(self, kind: type[nn.MultiheadAttention] = nn.MultiheadAttention) -> None:
        super().__init__()
        self.mix, self.head = kind(8, 2, batch_first=True), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.mix(x, x, x)[0])


class Reading(Held):
    """Reads attention's weights and calls torch's function on them."""

    def forward(self, x: Tensor) -> Tensor:
        m, x = self.mix, x.transpose(0, 1)
        y, _ = F.multi_head_attention_forward(
            x, x, x, m.embed_dim, m.num_heads, m.in_proj_weight, m.in_proj_bias, None, None,
            False, 0.0, m.out_proj.weight, m.out_proj.bias, training=False,
        )  # fmt: skip
        return self.head(y.transpose(0, 1))


@pytest.mark.parametrize("technique", TECHNIQUES)
@torch.no_grad()
def test_who_reads_the_weights_reads_those_of_the_codes(technique: str) -> None:
    torch.manual_seed(0)
    model, x = Reading().eval(), torch.randn(3, 5, 8)
    quantized = TECHNIQUES[technique](model)
    assert isinstance(quantized.mix, Attention)
    assert error(quantized(x), model(x)) < TOLERANCES["dynamic"][0]


def hooked() -> nn.Module:
    model = Held()
    model.mix.register_forward_hook(lambda *_: None)
    return model


def hooked_output() -> nn.Module:
    model = Held()
    model.mix.out_proj.register_forward_pre_hook(lambda *_: None)
    return model


def tied() -> nn.Module:
    model = Held()
    model.other = nn.MultiheadAttention(8, 2)
    model.other.in_proj_weight = model.mix.in_proj_weight
    return model


def listed() -> nn.Module:
    model = Held()
    model.order = [model.mix]
    return model


WHOLE: dict[str, tuple[Callable[[], nn.Module], tuple[str, ...], str]] = {
    "a class of its own": (lambda: Held(Own), (), "Own is a class of your own"),
    "hooks": (hooked, (), "it has forward hooks"),
    "hooks of its output": (hooked_output, (), "its output projection: it has forward hooks"),
    "tied": (tied, (), "its in_proj_weight is tied to that of another layer"),
    "in a list": (listed, (), "the plain attribute order holds it too"),
    "kept": (Held, ("mix",), "it was to stay"),
    "kept by its weight": (Held, ("mix.in_proj_weight",), "it was to stay"),
}


@pytest.mark.parametrize("technique", TECHNIQUES)
@pytest.mark.parametrize("name", WHOLE)
@torch.no_grad()
def test_attention_that_is_not_written_out_is_listed_and_loads(
    name: str, technique: str, tmp_path: Path
) -> None:
    make, keep, reason = WHOLE[name]
    torch.manual_seed(0)
    model, x = make().eval(), torch.randn(3, 5, 8)
    quantized = TECHNIQUES[technique](model, keep=keep)
    assert reason in left_out(quantized)["mix.in_proj_weight"]
    assert isinstance(quantized.mix, nn.MultiheadAttention)
    assert error(quantized(x), model(x)) < TOLERANCES["dynamic"][0]
    if name == "kept":
        assert left_out(quantized)["mix.out_proj.weight"] == reason
    save(quantized, tmp_path / "model")
    again = load(tmp_path / "model", make)
    assert torch.equal(again(x), quantized(x))


@pytest.mark.parametrize("technique", TECHNIQUES)
def test_one_projection_may_stay(technique: str, tmp_path: Path) -> None:
    quantized = TECHNIQUES[technique](Held(), keep=("mix.k_proj", "mix.out_proj"))
    assert set(left_out(quantized)) == {"mix.k_proj.weight", "mix.out_proj.weight"}
    assert type(quantized.mix.k_proj) is nn.Linear
    save(quantized, tmp_path / "model")
    again: Any = load(tmp_path / "model", Held)
    assert torch.equal(again.mix.q_proj.codes, quantized.mix.q_proj.codes)
    with pytest.raises(CompressionError, match=r"no layer with weights at 'mix\.z_proj'"):
        TECHNIQUES[technique](Held(), keep=("mix.z_proj",))


STORED: dict[str, Callable[[nn.Module], nn.Module]] = {
    "dynamic": quantize_dynamic,
    "weights": lambda m: quantize_weights(m, num_bits=3, group_size=16),
    "weights of dynamic": lambda m: quantize_weights(quantize_dynamic(m, keep=("heads.head",))),
    "cast": lambda m: cast(quantize_weights(m), torch.bfloat16),
}


def vit() -> nn.Module:
    return made("vit").float().eval()


@pytest.mark.parametrize("name", STORED)
@torch.no_grad()
def test_a_vision_transformer_comes_back_bit_for_bit(name: str, tmp_path: Path) -> None:
    quantized, x = STORED[name](vit()), torch.randn(2, 3, 16, 16)
    network = quantized.network if isinstance(quantized, CastModel) else quantized
    assert sum(isinstance(m, Attention) for m in network.modules()) == 2
    assert not in_float(network)
    for entropy_coded in (False, True):
        save(quantized, tmp_path / "model", entropy_coded=entropy_coded)
        again = load(tmp_path / "model", vit)
        assert torch.equal(again(x), quantized(x))


@pytest.mark.parametrize("technique", TECHNIQUES)
@pytest.mark.parametrize("name", ["swin", "swin_v2", "maxvit"])
@torch.no_grad()
def test_torchvisions_own_attention_reads_or_calls_its_linear_layers(
    name: str, technique: str
) -> None:
    model = made(name).float().eval()
    side = 16 if name == "maxvit" else 32
    quantized, x = TECHNIQUES[technique](model), torch.randn(2, 3, side, side)
    assert not in_float(quantized)
    assert error(quantized(x), model(x)) < TOLERANCES["dynamic"][0]


def test_attention_at_two_places_stays_one(tmp_path: Path) -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.MultiheadAttention(8, 2)
            self.second = self.first

        def forward(self, x: Tensor) -> Tensor:
            return self.second(y := self.first(x, x, x)[0], y, y)[0]

    quantized: Any = quantize_weights(Twice())
    assert quantized.first is quantized.second
    save(quantized, tmp_path / "model")
    again: Any = load(tmp_path / "model", Twice)
    assert again.first is again.second
    x = torch.randn(3, 2, 8)
    assert torch.equal(again(x), quantized(x))
