"""Recurrent layers whose inputs and hidden states are quantized at each call."""

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence

from compression.accounting import count_macs, count_nonzeros, count_parameters, dense_bytes
from compression.errors import CompressionError, UnsupportedTypeError
from compression.layers import left_out
from compression.nested import tensors_in
from compression.quantization import DynamicQuantizedRecurrent, quantize_dynamic
from compression.quantization.gates import sigmoid, tanh
from tests.support.recurrent_cases import NAMED, Case, assert_alike, assert_same, cases

LEAST_SQNR = 20.0
"""dB of the outputs, beside float64: 8 bits have 40 and more, and each of up to 18 steps adds some."""


def quantized_of(case: Case) -> Any:
    return quantize_dynamic(case.layer())


def doubled(value: Any) -> Any:
    """Return a tensor, a packed sequence or a tuple of states in float64."""
    packed = isinstance(value, Tensor | PackedSequence)
    return value.to(torch.float64) if packed else tuple(map(doubled, value))


def sqnr(found: Any, wanted: Any) -> float:
    """Return the signal-to-noise ratio of all outputs together, in dB."""
    one, other = (torch.cat([t.flatten() for t in tensors_in(v)]).double() for v in (found, wanted))
    return float(20 * torch.log10(other.norm() / (one - other).norm()))


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
@given(case=cases())
@torch.no_grad()
def test_any_layer_returns_what_torchs_does(case: Case) -> None:
    layer, call = case.layer(), case.call()
    quantized, before = quantize_dynamic(layer), copy.deepcopy(call)
    assert isinstance(quantized, DynamicQuantizedRecurrent)
    assert left_out(quantized) == {}
    found = quantized(*call)
    assert_same(call, before)
    assert_alike(found, layer(*call))
    assert sqnr(found, layer.double()(*map(doubled, call))) >= LEAST_SQNR


def product(rows: Tensor, weight: Tensor) -> Tensor:
    """Return rows times a weight (outputs, inputs), both quantized, as it is defined."""
    x, w, tiny = rows.numpy(), weight.numpy(), np.float32(2.0**-126)
    of_weight = np.maximum(np.abs(w).max(1) / np.float32(127), tiny)
    codes = np.rint(w / of_weight[:, None]).astype(np.int64)
    low, high = np.minimum(x.min(1, keepdims=True), 0), np.maximum(x.max(1, keepdims=True), 0)
    scale = np.maximum(high / np.float32(255) - low / np.float32(255), tiny)
    zero = np.clip(-128 - np.rint(low / scale), -128, 127)
    steps = np.clip(np.rint(x / scale) + zero, -128, 127).astype(np.int64) - zero.astype(np.int64)
    return torch.from_numpy((steps @ codes.T).astype(np.float32) * (scale * of_weight))


def defined(layer: Any, x: Tensor, end: str = "_l0") -> list[Tensor]:
    """Return the outputs of one direction for one sequence (steps, inputs), from zeros."""
    weights = [getattr(layer, f"weight_{part}{end}") for part in ("ih", "hh")]
    biases = [getattr(layer, f"bias_{part}{end}") for part in ("ih", "hh")]
    hidden = torch.zeros(1, layer.proj_size or layer.hidden_size)
    cell, outputs = torch.zeros(1, layer.hidden_size), []
    for row in x.flip(0) if end.endswith("reverse") else x:
        a = product(row[None], weights[0]) + biases[0]
        b = product(hidden, weights[1]) + biases[1]
        if layer.mode == "LSTM":
            i, f, g, o = (a + b).chunk(4, 1)
            cell = sigmoid(f) * cell + sigmoid(i) * tanh(g)
            hidden = sigmoid(o) * tanh(cell)
            if layer.proj_size:
                hidden = product(hidden, getattr(layer, f"weight_hr{end}"))
        elif layer.mode == "GRU":
            (r, z, n), (hr, hz, hn) = a.chunk(3, 1), b.chunk(3, 1)
            update, new = sigmoid(z + hz), tanh(n + sigmoid(r + hr) * hn)
            hidden = new + update * (hidden - new)
        else:
            hidden = tanh(a + b) if layer.mode == "RNN_TANH" else (a + b).clamp(min=0)
        outputs.append(hidden)
    return outputs


@pytest.mark.parametrize("mode", ["LSTM", "projected", "GRU", "TANH", "RELU"])
@torch.no_grad()
def test_the_numbers_are_those_of_the_definition(mode: str) -> None:
    projected = {"mode": "LSTM", "projected": 5} if mode == "projected" else {"mode": mode}
    case = Case(**projected, inputs=11, hidden=13, both_ways=True, form="single")  # type: ignore[arg-type]
    layer, (x,) = case.layer(), case.call()
    outputs, last = quantize_dynamic(layer)(x)
    ways = defined(layer, x), defined(layer, x, "_l0_reverse")[::-1]
    wanted = torch.cat([torch.cat(way) for way in ways], 1)
    assert torch.equal(outputs, wanted)
    hidden = last[0] if layer.mode == "LSTM" else last
    assert torch.equal(hidden, torch.cat([ways[0][-1], ways[1][0]]))


@pytest.mark.parametrize("name", NAMED)
@torch.no_grad()
def test_a_sequence_is_what_it_is_alone(name: str) -> None:
    """Rows are quantized one by one, so that no sequence of a batch touches another."""
    case = NAMED[name]
    quantized, call = quantized_of(case), case.call()
    outputs, last = quantized(*call)
    states = last if isinstance(last, tuple) else (last,)
    if isinstance(outputs, PackedSequence):
        given_rows, lengths = pad_packed_sequence(call[0], batch_first=True)
        rows = pad_packed_sequence(outputs, batch_first=True)[0]
    elif outputs.ndim == 2:
        given_rows, rows, lengths = call[0][None], outputs[None], torch.tensor([len(outputs)])
        states = tuple(state[:, None] for state in states)
    else:
        steps_first = not case.batch_first
        given_rows, rows = (t.transpose(0, 1) if steps_first else t for t in (call[0], outputs))
        lengths = torch.tensor([rows.shape[1]] * len(rows))
    for i, length in enumerate(lengths.tolist()):
        hx: Any = None
        if case.states:
            held = call[1] if isinstance(call[1], tuple) else (call[1],)
            alone = [h if h.ndim == 2 else h[:, i] for h in held]
            hx = tuple(alone) if case.mode == "LSTM" else alone[0]
        found, ends = quantized(given_rows[i, :length], hx)
        assert torch.equal(found, rows[i, :length])
        for one, other in zip(ends if isinstance(ends, tuple) else (ends,), states, strict=True):
            assert torch.equal(one, other[:, i])


@pytest.mark.parametrize("mode", ["LSTM", "GRU", "TANH", "RELU"])
@torch.no_grad()
def test_two_halves_are_the_whole(mode: str) -> None:
    case = Case(mode, layers=2)
    quantized, (x,) = quantized_of(case), case.call()
    outputs, last = quantized(x)
    first, between = quantized(x[:2])
    second, end = quantized(input=x[2:], hx=between)
    assert_same((torch.cat([first, second]), end), (outputs, last))


@torch.no_grad()
def test_it_looks_like_torchs_layer_to_its_parent() -> None:
    case = NAMED["lstm, projected"]
    layer, quantized = case.layer(), quantized_of(case)
    quantized.flatten_parameters()
    assert (quantized.hidden_size, quantized.proj_size, quantized.bidirectional) == (8, 3, True)
    step = layer.weight_hh_l1.abs().amax(1, keepdim=True) / 127
    assert ((quantized.weight_hh_l1 - layer.weight_hh_l1).abs() <= step * 0.501).all()
    assert torch.equal(quantized.bias_hh_l1_reverse, layer.bias_hh_l1_reverse)
    assert not quantized(*case.call())[0].data.requires_grad
    with torch.enable_grad():
        outputs = quantized(*case.call())[0].data
    assert not outputs.requires_grad
    quantized.train()  # drops inputs of its second layer, as torch's does
    assert not torch.equal(quantized(*case.call())[0].data, outputs)


@torch.no_grad()
def test_half_and_double_precision_are_computed_in_float32() -> None:
    case = Case(layers=2, states=True)
    layer, (x, (h, c)) = case.layer(), case.call()
    for dtype in (torch.bfloat16, torch.float16, torch.float64):
        rounded = copy.deepcopy(layer).to(dtype)
        values = [v.to(dtype) for v in (x, h, c)]
        wanted = quantize_dynamic(rounded.float())(
            values[0].float(), tuple(map(Tensor.float, values[1:]))
        )
        found = quantize_dynamic(copy.deepcopy(layer).to(dtype))(values[0], tuple(values[1:]))
        for one, other in zip(tensors_in(found), tensors_in(wanted), strict=True):
            assert one.dtype == dtype
            assert torch.equal(one, other.to(dtype))


WRONG: dict[str, tuple[Callable[[], tuple[Any, ...]], type[Exception], str]] = {
    "features": (
        lambda: (torch.ones(2, 3, 5),), CompressionError,
        r"LSTM of 6 inputs expects \(steps, batch, 6\) or \(steps, 6\), found the shape \(2, 3, 5\)",
    ),
    "axes": (lambda: (torch.ones(6),), CompressionError, r"found the shape \(6,\)"),
    "whole numbers": (
        lambda: (torch.ones(2, 3, 6, dtype=torch.int64),), UnsupportedTypeError,
        r"expects real inputs or a packed sequence of them, found torch\.int64",
    ),
    "no tensor": (lambda: ([1.0],), UnsupportedTypeError, "found list"),
    "no step": (lambda: (torch.ones(0, 3, 6),), CompressionError, "at least one step, found none"),
    "one state": (
        lambda: (torch.ones(2, 3, 6), torch.ones(1, 3, 8)), CompressionError,
        r"expects states \[\(1, 3, 8\), \(1, 3, 8\)\], found \[\(1, 3, 8\)\]",
    ),
    "states of another batch": (
        lambda: (torch.ones(2, 3, 6), (torch.ones(1, 2, 8), torch.ones(1, 3, 8))), CompressionError,
        r"expects states .*, found \[\(1, 2, 8\)",
    ),
    "states of one sequence": (
        lambda: (torch.ones(2, 6), (torch.ones(1, 1, 8), torch.ones(1, 1, 8))), CompressionError,
        r"expects states \[\(1, 8\), \(1, 8\)\]",
    ),
    "states of another dtype": (
        lambda: (torch.ones(2, 6), (torch.ones(1, 8).double(), torch.ones(1, 8))),
        UnsupportedTypeError, r"states of its input's torch\.float32, found torch\.float64",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_what_it_does_not_take_is_refused(name: str) -> None:
    call, error, message = WRONG[name]
    with pytest.raises(error, match=message):
        quantized_of(Case())(*call())


def test_its_numbers_count_as_those_of_the_float_layer() -> None:
    for case in NAMED.values():
        layer, quantized = case.layer(), quantized_of(case)
        assert count_parameters(quantized) == count_parameters(layer)
        codes = sum(m.codes.count_nonzero() for m in quantized.matrices.values())
        biases = sum(p.numel() for p in layer.parameters() if p.ndim < 2)
        assert count_nonzeros(quantized) == codes + biases
        matrices = [p for p in layer.parameters() if p.ndim > 1]
        scales = sum(len(matrix) for matrix in matrices)
        assert dense_bytes(quantized) == sum(p.numel() for p in matrices) + 4 * (scales + biases)
        if case.form != "packed" and not case.projected:
            assert count_macs(quantized, *case.call()) == count_macs(layer, *case.call())
