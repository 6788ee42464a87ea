"""Attention that is written out computes what torch's does, and stands in its place."""

import copy
import io
import itertools
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from compression.attention import Attention
from compression.errors import CompressionError
from compression.graph import trace
from tests.support.torch_attention import (
    BATCH,
    HEADS,
    KEYS,
    OPTIONS,
    QUERIES,
    WIDTH,
    held,
    inputs,
    masks,
)


@pytest.mark.parametrize("batched", [True, False])
@pytest.mark.parametrize("options", OPTIONS)
def test_it_computes_what_torch_does(options: str, batched: bool) -> None:
    layer = held(**OPTIONS[options])
    written = Attention(layer)
    given = inputs(layer, batched=batched)
    for mask, weights in itertools.product(
        masks(batched=batched).values(),
        ({}, {"average_attn_weights": False}, {"need_weights": False}),
    ):
        wanted, found = layer(*given, **mask, **weights), written(*given, **mask, **weights)
        torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)


def test_one_input_may_be_all_three_of_them() -> None:
    layer = held(batch_first=True)
    x = torch.randn(2, 3, WIDTH, dtype=torch.float64)
    for mode in (torch.no_grad, torch.enable_grad):
        with mode():
            torch.testing.assert_close(Attention(layer)(x, x, x), layer(x, x, x))


def test_gradients_are_torchs() -> None:
    layer = held()
    written = Attention(layer).train()
    given = inputs(layer, batched=True)
    layer.train()(*given)[0].square().sum().backward()
    written(*given)[0].square().sum().backward()
    parts = [getattr(written, name).weight.grad for name in ("q_proj", "k_proj", "v_proj")]
    torch.testing.assert_close(torch.cat(parts), layer.in_proj_weight.grad)
    assert written.out_proj.weight is layer.out_proj.weight


@pytest.mark.parametrize("need_weights", [True, False])
def test_it_drops_in_training_only(need_weights: bool) -> None:
    layer = held(dropout=0.5)
    written, given = Attention(layer), inputs(layer, batched=True)
    assert not written.training

    def call() -> Tensor:
        found: Tensor = written(*given, need_weights=need_weights)[0]
        return found

    assert torch.equal(call(), call())
    written.train()
    assert not torch.equal(call(), call())
    mean = torch.stack([call() for _ in range(4000)]).mean(0)
    torch.testing.assert_close(mean, written.eval()(*given)[0], rtol=0, atol=0.25)


def test_what_the_parameters_are_stays() -> None:
    layer = held(add_bias_kv=True).half()
    layer.in_proj_weight.requires_grad_(False)
    written = Attention(layer.train())
    assert written.training
    assert {p.dtype for p in written.parameters()} == {torch.float16}
    assert not written.q_proj.weight.requires_grad
    assert written.q_proj.bias.requires_grad
    count = sum(p.numel() for p in layer.parameters())
    assert sum(p.numel() for p in written.parameters()) == count
    memory = [p.untyped_storage().data_ptr() for p in written.parameters()]
    assert len(set(memory)) == len(memory)
    assert (written.num_heads, written.embed_dim) == (HEADS, WIDTH)


def test_it_is_copied_pickled_traced_and_exported() -> None:
    layer = held(batch_first=True)
    x = torch.randn(2, 3, WIDTH, dtype=torch.float64)

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mix = Attention(layer)

        def forward(self, x: Tensor) -> Tensor:
            y, _ = self.mix(x, x, x, need_weights=False)
            return x + y  # type: ignore[no-any-return]

    block = Block().eval()
    file = io.BytesIO()
    torch.save(block.mix, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=False)
    wanted = block(x)
    traced = trace(block)
    assert {n.target for n in traced.graph.nodes if n.op == "call_module"} == {
        f"mix.{name}_proj" for name in ("q", "k", "v", "out")
    }
    exported = torch.export.export(block, (x,)).module()
    for found in (copy.deepcopy(block)(x), traced(x), exported(x)):
        torch.testing.assert_close(found, wanted)
    assert torch.equal(x + loaded(x, x, x, need_weights=False)[0], wanted)


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("norm_first", [True, False])
def test_layers_of_transformers_take_it(batch_first: bool, norm_first: bool) -> None:
    torch.manual_seed(0)
    options: Any = {"batch_first": batch_first, "norm_first": norm_first, "dtype": torch.float64}
    encoder = nn.TransformerEncoderLayer(WIDTH, HEADS, 16, **options).eval()
    decoder = nn.TransformerDecoderLayer(WIDTH, HEADS, 16, **options).eval()
    x, y = torch.randn(2, BATCH, 4, WIDTH, dtype=torch.float64)
    mask = nn.Transformer.generate_square_subsequent_mask(x.shape[1 - (not batch_first)])
    mask = mask.double()
    for mode in (torch.no_grad, torch.enable_grad):
        with mode():
            wanted = encoder(x, mask, is_causal=True), decoder(x, y, tgt_mask=mask)
            written = copy.deepcopy((encoder, decoder))
            written[0].self_attn = Attention(encoder.self_attn)
            written[1].self_attn = Attention(decoder.self_attn)
            written[1].multihead_attn = Attention(decoder.multihead_attn)
            found = written[0](x, mask, is_causal=True), written[1](x, y, tgt_mask=mask)
            torch.testing.assert_close(found, wanted)


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "causal without a mask": ({"is_causal": True}, "expected the mask, found None"),
    "heads": (
        {"attn_mask": torch.zeros(5, QUERIES, KEYS)},
        r"attn_mask: expected the shape \(5, 4\) or \(6, 5, 4\), found \(5, 5, 4\)",
    ),
    "padding": (
        {"key_padding_mask": torch.zeros(BATCH, QUERIES)},
        r"key_padding_mask: expected the shape \(4,\) or \(3, 4\), found \(3, 5\)",
    ),
    "integers": ({"attn_mask": torch.zeros(QUERIES, KEYS).long()}, "bools or floats, found"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_masks_are_refused(name: str) -> None:
    layer, (mask, message) = held(), WRONG[name]
    with pytest.raises(CompressionError, match=message):
        Attention(layer)(*inputs(layer, batched=True), **mask)
