"""Recurrent layers and embeddings whose weights are codes."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

from compression.integer import deploy, lacking
from compression.integer.native.embedding import NativeEmbedding
from compression.integer.native.recurrent import NativeRecurrent
from compression.layers import left_out
from compression.quantization import (
    WeightQuantizedEmbedding,
    WeightQuantizedRecurrent,
    cast,
    quantize_dynamic,
    quantize_weights,
)
from compression.storage import load, save

LAYERS: dict[str, Callable[[], nn.RNNBase]] = {
    "lstm": lambda: nn.LSTM(6, 8),
    "lstm, two layers, both ways": lambda: nn.LSTM(6, 8, 2, bidirectional=True, batch_first=True),
    "lstm, projected": lambda: nn.LSTM(6, 8, 2, proj_size=4, bidirectional=True),
    "lstm without bias": lambda: nn.LSTM(6, 8, bias=False),
    "gru": lambda: nn.GRU(6, 8, 2, batch_first=True),
    "gru, both ways": lambda: nn.GRU(6, 8, bidirectional=True, dropout=0.0),
    "rnn": lambda: nn.RNN(6, 8, nonlinearity="relu"),
}


def rounded(layer: nn.RNNBase, quantized: Any) -> nn.RNNBase:
    """Return torch's layer with the matrices that the codes stand for."""
    twin = copy.deepcopy(layer)
    with torch.no_grad():
        for name, matrix in quantized.matrices.items():
            getattr(twin, name).copy_(matrix.weight)
    return twin


def tensors(outputs: Any) -> list[Tensor]:
    if isinstance(outputs, PackedSequence):
        return [outputs.data]
    if isinstance(outputs, Tensor):
        return [outputs]
    return [tensor for part in outputs for tensor in tensors(part)]


def assert_same(found: Any, wanted: Any) -> None:
    assert type(found) is type(wanted)
    for one, other in zip(tensors(found), tensors(wanted), strict=True):
        assert torch.equal(one, other)


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
@pytest.mark.parametrize("group_size", [None, 4])
@pytest.mark.parametrize("name", LAYERS)
@torch.no_grad()
def test_torchs_layer_runs_with_the_matrices_of_the_codes(
    name: str, group_size: int | None
) -> None:
    torch.manual_seed(0)
    layer, x = LAYERS[name]().eval(), torch.randn(3, 3, 6)
    quantized: Any = quantize_weights(layer, num_bits=4, group_size=group_size)
    assert isinstance(quantized, WeightQuantizedRecurrent)
    assert left_out(quantized) == {}
    wanted = rounded(layer, quantized)
    assert not torch.equal(wanted.weight_ih_l0, layer.weight_ih_l0)
    assert_same(quantized(x), wanted(x))
    assert_same(quantized(x[0]), wanted(x[0]))
    packed = pack_padded_sequence(x, torch.tensor([3, 2, 1]), batch_first=layer.batch_first)
    assert_same(quantized(packed), wanted(packed))
    state = wanted(x)[1]
    assert_same(quantized(x, state), wanted(x, state))
    assert_same(copy.deepcopy(quantized)(input=x, hx=state), wanted(x, state))
    assert quantized.hidden_size == 8
    assert torch.equal(quantized.weight_hh_l0, wanted.weight_hh_l0)
    quantized.flatten_parameters()


class Words(nn.Module):
    """An embedding, a recurrent layer, and an output that may share the embedding's weight."""

    def __init__(self, *, tied: bool = False, max_norm: float | None = None) -> None:
        super().__init__()
        self.words = nn.Embedding(11, 6, padding_idx=0, max_norm=max_norm)
        self.body = nn.LSTM(6, 6, batch_first=True)
        self.head = nn.Linear(6, 11)
        if tied:
            self.head.weight = self.words.weight

    def forward(self, tokens: Tensor) -> Tensor:
        self.body.flatten_parameters()
        return self.head(self.body(self.words(tokens))[0])


TOKENS = torch.tensor([[1, 5, 10], [2, 0, 0]])


@pytest.mark.parametrize("group_size", [None, 4, 3])
@torch.no_grad()
def test_an_embedding_gives_the_rows_of_its_codes(group_size: int | None) -> None:
    layer = nn.Embedding(11, 6, padding_idx=0)
    quantized: Any = quantize_weights(layer, num_bits=3, group_size=group_size)
    assert isinstance(quantized, WeightQuantizedEmbedding)
    assert torch.equal(quantized(TOKENS), quantized.weight[TOKENS])
    step = layer.weight.abs().amax(1, keepdim=True) / 3
    assert ((quantized.weight - layer.weight).abs() <= step * 0.5 + 1e-6).all()
    assert quantized(TOKENS[:, :0]).shape == (2, 0, 6)
    assert quantized(TOKENS[0, 0]).shape == (6,)
    assert torch.equal(quantized(TOKENS.int()), quantized(TOKENS))
    for beyond in (-1, 11):
        with pytest.raises(IndexError):
            quantized(torch.tensor([beyond]))
    assert (quantized.num_embeddings, quantized.padding_idx) == (11, 0)


STORED: dict[str, Callable[[nn.Module], nn.Module]] = {
    "8 bits": quantize_weights,
    "3 bits": lambda m: quantize_weights(m, num_bits=3, group_size=4),
    "of dynamic": lambda m: quantize_weights(quantize_dynamic(m)),
    "but one": lambda m: quantize_weights(m, keep=("words",)),
    "cast": lambda m: cast(quantize_weights(m, num_bits=4), torch.bfloat16),
    "of cast": lambda m: quantize_weights(cast(m, torch.bfloat16)),
}


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("name", STORED)
@torch.no_grad()
def test_networks_of_words_come_back_bit_for_bit(name: str, tied: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    quantized = STORED[name](Words(tied=tied).eval())
    for entropy_coded in (False, True):
        save(quantized, tmp_path / "model", entropy_coded=entropy_coded)
        again = load(tmp_path / "model", lambda: Words(tied=tied))
        assert torch.equal(again(TOKENS), quantized(TOKENS))
        assert [n for n, _ in again.named_buffers()] == [n for n, _ in quantized.named_buffers()]


@torch.no_grad()
def test_a_tied_embedding_and_output_share_their_codes() -> None:
    quantized: Any = quantize_weights(Words(tied=True).eval())
    assert quantized.words.codes is quantized.head.codes
    assert left_out(quantized) == {}
    deployed = deploy(quantized, TOKENS)
    assert type(deployed.body) is (nn.LSTM if lacking("native") else NativeRecurrent)
    assert type(deployed.words) is (
        WeightQuantizedEmbedding if lacking("native") else NativeEmbedding
    )
    torch.testing.assert_close(deployed(TOKENS), quantized(TOKENS))


def cells() -> nn.Module:
    model = Words()
    model.cell = nn.LSTMCell(6, 6)
    model.bag = nn.EmbeddingBag(4, 6)
    return model


def shared_matrix() -> nn.Module:
    model = Words()
    model.other = nn.LSTM(6, 6)
    model.other.weight_hh_l0 = model.body.weight_hh_l0
    return model


def hooked() -> nn.Module:
    model = Words()
    model.body.register_forward_hook(lambda *_: None)
    return model


LEFT: dict[str, tuple[Callable[[], nn.Module], tuple[str, ...], dict[str, str]]] = {
    "cells": (
        cells, (), {"cell.weight_ih": "found LSTMCell", "bag.weight": "are looked up"}
    ),
    "tied": (shared_matrix, (), {"body.weight_ih_l0": "tied", "other.weight_hh_l0": "tied"}),
    "hooked": (hooked, (), {"body.weight_hh_l0": "it has forward hooks"}),
    "scaled": (lambda: Words(max_norm=1.0), (), {"words.weight": "by max_norm"}),
    "kept": (Words, ("body",), {"body.weight_ih_l0": "to stay", "body.weight_hh_l0": "to stay"}),
    "kept by a matrix": (Words, ("body.weight_hh_l0",), {"body.weight_ih_l0": "to stay"}),
}  # fmt: skip


@pytest.mark.parametrize("name", LEFT)
def test_what_stays_in_float_is_listed_and_loads(name: str, tmp_path: Path) -> None:
    make, keep, reasons = LEFT[name]
    quantized = quantize_weights(make(), keep=keep)
    missed = left_out(quantized)
    for tensor, reason in reasons.items():
        found = missed.get(tensor, missed.get(tensor.replace("other", "body"), ""))
        assert reason in found
    save(quantized, tmp_path / "model")
    again = load(tmp_path / "model", make)
    assert torch.equal(again(TOKENS), quantized(TOKENS))
