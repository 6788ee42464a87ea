"""Transformers in static INT8: nothing stays in float, and what is not known is named."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compression.errors import UnsupportedTypeError
from compression.layers import left_out
from compression.quantization import modules as q
from compression.quantization import quantize_aware, quantize_static
from compression.storage import load, save
from compression.training import Recipe, Split
from tests.support.integer_nets import numbers
from tests.support.transformer_nets import NETS, by_hand, encoder
from tests.support.tricky_nets import Net

# network: (decibels of the outputs beside float64's, at least), 2 dB below what was found
SQNR = {
    "vit": 31, "convnext": 41, "maxvit": 41, "swin": 35, "encoder": 30, "encoder, norms first": 34,
    "by hand": 32, "by hand, fused": 33, "moved": 31, "long rows": 30, "queries": 32,
}  # fmt: skip
if torch.__version__ < (2, 12):  # which draws other weights of these two
    SQNR |= {"convnext": 36, "maxvit": 36}


@torch.no_grad()
@pytest.mark.parametrize("name", NETS)
def test_whole_networks_are_on_codes(name: str) -> None:
    model, x = NETS[name]()
    small = quantize_static(model, x)
    assert left_out(small) == {}
    wanted = model.double()(x.double())
    noise = (small(x) - wanted).square().sum()
    assert 10 * torch.log10(wanted.square().sum() / noise) >= SQNR[name]
    assert small(x[:0]).shape == (0, *wanted.shape[1:])


def test_attention_is_one_operator_however_it_is_written() -> None:
    for fused in (False, True):
        model, x = by_hand(fused=fused)
        kinds = [type(m) for m in quantize_static(model, x).modules()]
        assert kinds.count(q.QuantizedAttention) == 1
        assert kinds.count(q.QuantizedProduct) == kinds.count(q.QuantizedAffine) == 0


@torch.no_grad()
@pytest.mark.parametrize("name", NETS)
def test_biases_are_corrected_by_batches_of_any_size(name: str) -> None:
    model, x = NETS[name]()
    small = quantize_static(model, [x, x[:1]], bias_correction=True)
    wanted = model.double()(x.double())
    noise = (small(x) - wanted).square().sum()
    assert 10 * torch.log10(wanted.square().sum() / noise) >= SQNR[name] - 1


def test_constants_keep_their_places_beside_what_rounding_leaves() -> None:
    model, x = by_hand(fused=True)
    layers = dict(quantize_static(model, x).network.named_modules())
    held = {n: m.held_places for n, m in layers.items() if isinstance(m, q.QuantizedJoin)}
    assert (held["cat"], held["cat_rest"]) == ((0,), (0,))
    assert (held["add"], held["add_rest"]) == ((2,), (2,))


@pytest.mark.parametrize("entropy_coded", [False, True])
@pytest.mark.parametrize("name", ["vit", "swin", "encoder, norms first", "by hand"])
def test_files_hold_norms_masks_and_constants(
    tmp_path: Path, name: str, entropy_coded: bool
) -> None:
    model, x = NETS[name]()
    small = quantize_static(model, x)
    save(small, tmp_path / "small", entropy_coded=entropy_coded)
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    assert torch.equal(load(tmp_path / "small", lambda: model)(x), small(x))


def test_training_with_rounding_trains_norms_and_constants() -> None:
    model, x = by_hand(fused=False)
    split = Split(x.repeat(4, 1, 1, 1), torch.arange(16) % 6, prepare=lambda x: x)
    before = quantize_static(model, x)
    recipe = Recipe(epochs=1, batch_size=8, learning_rate=1e-9)
    assert torch.equal(quantize_aware(model, split, recipe, x)(x), before(x))
    recipe = Recipe(epochs=1, batch_size=8, learning_rate=0.05)
    after = quantize_aware(model, split, recipe, x)
    for name in ("norm1.weight", "cat.held0", "add.held2"):
        old, new = (network.network.state_dict()[name] for network in (before, after))
        assert not torch.equal(old, new), name


def mixed(how: Callable[[Any, Tensor], Any], **layers: nn.Module) -> nn.Module:
    mix = nn.MultiheadAttention(12, 2, batch_first=True, dropout=0.0)
    return Net(how, a=nn.Linear(12, 12), mix=mix, **layers).eval()


REFUSED: dict[str, tuple[Callable[[Any, Tensor], Any], str]] = {
    "weights of attention": (
        lambda s, x: s.mix(x, x, x)[1], r"operator attend .*at mix|operator attend"
    ),
    "a mask of inputs": (
        lambda _, x: F.scaled_dot_product_attention(x, x, x, x @ x.transpose(1, 2)),
        "matmul|mask that depends on the inputs",
    ),
    "an attention that drops": (
        lambda s, x: F.scaled_dot_product_attention(s.a(x), x, x, dropout_p=0.5),
        "with dropout|other outputs",
    ),
    "factors of inputs": (
        lambda s, x: F.layer_norm(s.a(x), [12], x[0, 0]), "factors that a value tells|other out"
    ),
    "constants along the batch": (
        lambda s, x: torch.cat([s.a(x), s.more[None]]), "of constants and images along the batch"
    ),
    "another softmax": (lambda s, x: s.a(x).softmax(1), "does not know the operator softmax"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_known_is_refused_by_name(name: str) -> None:
    how, said = REFUSED[name]
    model: Any = mixed(how)
    model.more = nn.Parameter(torch.ones(5, 12))
    with pytest.raises(UnsupportedTypeError, match=said):
        quantize_static(model, numbers(3, 5, 12))


def scaled(s: Any, x: Tensor) -> Tensor:
    """Scales of channels that a layer takes in, and one that makes more axes of its outputs."""
    y = s.a(x) * s.more[0]
    z = s.b(x).permute(dims=(0, 2, 1)) * s.more[0, :, None]
    return s.head((y + z.transpose(1, 2)) * s.more[:1, None, None])  # type: ignore[no-any-return]


@torch.no_grad()
def test_scales_go_into_layers_where_shapes_stay() -> None:
    torch.manual_seed(0)
    linear = (nn.Linear(12, 12) for _ in range(3))
    model: Any = Net(scaled, **dict(zip(("a", "b", "head"), linear, strict=True))).eval()
    model.more = nn.Parameter(torch.rand(2, 12) + 0.5)
    x = numbers(3, 5, 12)
    small = quantize_static(model, x)
    wanted = model(x)
    assert small(x).shape == wanted.shape
    assert (small(x) - wanted).norm() <= 0.05 * wanted.norm()
    products = [m for m in small.modules() if isinstance(m, q.QuantizedProduct)]
    assert len(products) == 1


def test_padding_masks_stay_out() -> None:
    """A mask that hides whole tokens of each image depends on the images."""
    model = mixed(
        lambda s, x: s.mix(x, x, x, key_padding_mask=x[..., 0] > 0, need_weights=False)[0]
    )
    with pytest.raises(UnsupportedTypeError, match=r"attend|operator gt"):
        quantize_static(model, numbers(3, 5, 12))


def test_the_model_is_as_it_was() -> None:
    model, x = encoder(masked=True)
    names = [(name, type(m)) for name, m in model.named_modules()]
    wanted = model(x)
    quantize_static(model, x)
    assert [(name, type(m)) for name, m in model.named_modules()] == names
    assert torch.equal(model(x), wanted)
