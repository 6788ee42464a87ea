"""LayerNorm, attention and tokens on Triton, in its interpreter: bit for bit the reference's."""

import pytest
import torch
from hypothesis import given, settings
from torch import Tensor, nn
from torch.nn import functional as F

from compression.errors import CompressionError, UnsupportedTypeError
from compression.integer import code_differences, lower_native, lower_triton
from compression.integer import lacking as lacking_executor
from compression.integer.steps.rows import MOST_KEYS
from compression.quantization import modules as q
from compression.quantization import quantize_static
from tests.support import mixed_nets, transformer_nets
from tests.support.attention_cases import MASKS, attending, attentions, normed, norms
from tests.support.integer_nets import numbers
from tests.support.interpreter import lacking_interpreter
from tests.support.strategies import examples
from tests.support.transformer_nets import Made, encoder, lively
from tests.support.tricky_nets import Net

pytestmark = pytest.mark.skipif(bool(lacking_interpreter()), reason=lacking_interpreter())
LARGE = {
    "more tokens than a tile": lambda: attending((70, 130), 2, 8, 8),
    "heads wider than a tile": lambda: attending((3, 5), 2, 130, 8),
    "values wider than a tile": lambda: attending((3, 5), 1, 8, 130),
    "one token": lambda: attending((1, 1), 1, 1, 1),
    "a row of several blocks": lambda: normed(2100),
    "a row of one": lambda: normed(1),
}


@torch.inference_mode()
def assert_same_bits(made: Made) -> None:
    """The batch that the network was lowered for, one image, and the batch again."""
    model, x = made
    reference = quantize_static(model, x)
    integer = lower_triton(reference, x)
    wanted = reference(x)
    assert torch.equal(integer(x), wanted)
    assert torch.equal(integer(x[-1:]), wanted[-1:])
    assert torch.equal(integer(x), wanted), "nothing is left of another prediction"


@pytest.mark.parametrize("name", transformer_nets.NETS)
@torch.no_grad()
def test_every_layer_of_a_transformer_gives_the_codes_of_the_reference(name: str) -> None:
    model, x = transformer_nets.NETS[name]()
    reference, x = quantize_static(model, x), x[:2]
    differences = code_differences(reference, lower_triton(reference, x, keep=True), x)
    modules = dict(reference.network.named_modules())
    rows = (q.QuantizedLayerNorm, q.QuantizedAttention)
    looked_at = [
        n for n in reference.network.graph.nodes if type(modules.get(str(n.target))) in rows
    ]
    assert looked_at
    assert {node.name for node in looked_at} <= set(differences)
    assert set(differences.values()) == {(0, 0.0)}


@pytest.mark.parametrize(("name", "batch"), [("by hand", 1), ("encoder, norms first", 3)])
def test_memory_that_is_used_again_changes_nothing(name: str, batch: int) -> None:
    model, x = transformer_nets.NETS[name]()
    assert_same_bits((model, x[:batch]))


@pytest.mark.parametrize("name", mixed_nets.NETS)
@torch.no_grad()
def test_values_are_tokens_and_signals_at_once(name: str) -> None:
    model, x = mixed_nets.NETS[name]()
    reference = quantize_static(model, x)
    integer = lower_triton(reference, x[:2])
    for images in (x, x[:1]):
        pairs = list(zip(integer(images), reference(images), strict=True))
        assert len(pairs) > 1
        assert all(torch.equal(*pair) for pair in pairs)


@pytest.mark.parametrize("name", LARGE)
def test_tiles_that_do_not_fit_give_the_reference(name: str) -> None:
    assert_same_bits(LARGE[name]())


@pytest.mark.parametrize("mask", MASKS)
def test_every_mask_gives_the_reference(mask: str) -> None:
    assert_same_bits(attending((9, 9), 2, 5, 5, mask=mask, batch=3))


@settings(max_examples=examples(0.1))
@given(attentions())
def test_any_attention_is_the_reference(made: Made) -> None:
    assert_same_bits(made)


@settings(max_examples=examples(0.1))
@given(norms())
def test_any_layer_norm_is_the_reference(made: Made) -> None:
    assert_same_bits(made)


class Mixed(nn.Module):
    """Torch's attention alone, by tokens."""

    def __init__(self, heads: int, *, first: bool, mask: Tensor | None = None) -> None:
        super().__init__()
        self.mix, self.first = nn.MultiheadAttention(12, heads, batch_first=first), first
        self.register_buffer("mask", mask)

    def forward(self, x: Tensor) -> Tensor:
        x = x if self.first else x.transpose(0, 1)
        y: Tensor = self.mix(x, x, x, attn_mask=self.mask, need_weights=False)[0]
        return y if self.first else y.transpose(0, 1)


MULTIHEAD = {
    "one head": (1, None),
    "bools": (3, torch.ones(7, 7, dtype=torch.bool).triu(1)),
    "numbers": (2, numbers(7, 7)),
}


@pytest.mark.parametrize("name", MULTIHEAD)
def test_torchs_attention_gives_the_reference(name: str) -> None:
    heads, mask = MULTIHEAD[name]
    torch.manual_seed(0)
    assert_same_bits((lively(Mixed(heads, first=True, mask=mask)), numbers(3, 7, 12)))


def test_tokens_are_codes_whatever_they_hold() -> None:
    """Wider than a tile, of a width that fills no pixel, with what is no number and what is clipped."""
    model = nn.Sequential(nn.Linear(100, 3)).eval()
    x = numbers(3, 5, 100)
    reference = quantize_static(model, x)
    odd = 3 * x
    odd[0, 0, :3] = torch.tensor([torch.nan, torch.inf, -torch.inf])
    with torch.inference_mode():
        assert torch.equal(lower_triton(reference, x)(odd), reference(odd))


def _crossed(s: Net, x: Tensor) -> Tensor:
    """One head of keys for two of queries."""
    y = s.a(x)
    q = y.unflatten(2, (2, -1)).transpose(1, 2)
    return F.scaled_dot_product_attention(q, q[:, :1], q[:, :1])


def _planes(s: Net, x: Tensor) -> Tensor:
    return F.layer_norm(s.a(x), [5, 12])


def _long(s: Net, x: Tensor) -> Tensor:
    keys = s.a(x)
    return F.scaled_dot_product_attention(keys[:, :1], keys, keys)


LONG = MOST_KEYS + 1
REFUSED = {
    "heads of another number": (_crossed, (2, 5, 12), r"of \[2, 5, 6\], \[1, 5, 6\]"),
    "a norm of planes": (_planes, (2, 5, 12), "over 2 dimensions"),
    "too many keys": (_long, (1, LONG, 2), f"of {LONG} keys, more than {MOST_KEYS}"),
}


@pytest.mark.parametrize("name", REFUSED)
@torch.no_grad()
def test_rows_that_no_kernel_takes_are_refused_by_name(name: str) -> None:
    how, shape, said = REFUSED[name]
    torch.manual_seed(0)
    layer = nn.Linear(shape[-1], shape[-1])
    reference = quantize_static(Net(how, a=layer).eval(), numbers(*shape))
    lowers = {"triton": lower_triton}
    if lacking_executor("native") is None:
        lowers["native"] = lower_native
    for executor, lower in lowers.items():
        with pytest.raises(
            UnsupportedTypeError, match=f"{executor} executor has no kernel.*{said}"
        ):
            lower(reference, numbers(*shape))


def test_tokens_of_several_images_and_other_shapes_are_refused() -> None:
    torch.manual_seed(0)
    reference = quantize_static(lively(Mixed(2, first=False)), numbers(3, 7, 12))
    with pytest.raises(UnsupportedTypeError, match="only the reference executor runs it"):
        lower_triton(reference, numbers(3, 7, 12))
    model, x = encoder(masked=True)
    integer = lower_triton(quantize_static(model, x), x)
    with pytest.raises(CompressionError, match=r"made for inputs \(N, 9, 24\).*found \(4, 8, 24\)"):
        integer(x[:, :8])
