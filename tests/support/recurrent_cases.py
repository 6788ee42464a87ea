"""Recurrent layers of every option with what they are called with, drawn or by name."""

from dataclasses import dataclass
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_sequence, pad_sequence

from compression.nested import tensors_in


@dataclass(frozen=True)
class Case:
    """A layer, and a call: of one sequence, of a batch of equal ones, or packed."""

    mode: str = "LSTM"
    inputs: int = 6
    hidden: int = 8
    layers: int = 1
    both_ways: bool = False
    bias: bool = True
    batch_first: bool = False
    projected: int = 0
    lengths: tuple[int, ...] = (5, 3, 5)
    form: str = "batch"
    sorted: bool = False
    states: bool = False
    seed: int = 0

    def layer(self) -> nn.RNNBase:
        """Return the float layer, of weights that the seed tells."""
        torch.manual_seed(self.seed)
        options: dict[str, Any] = {
            "num_layers": self.layers, "bias": self.bias, "batch_first": self.batch_first,
            "bidirectional": self.both_ways, "dropout": 0.5 if self.layers > 1 else 0.0,
        }  # fmt: skip
        if self.mode == "LSTM":
            made: nn.RNNBase = nn.LSTM(
                self.inputs, self.hidden, proj_size=self.projected, **options
            )
        elif self.mode == "GRU":
            made = nn.GRU(self.inputs, self.hidden, **options)
        else:
            made = nn.RNN(self.inputs, self.hidden, nonlinearity=self.mode.lower(), **options)
        return made.eval()

    def call(self, scale: float = 1.0) -> tuple[Any, ...]:
        """Return the input, and the states where there are any, of numbers at random."""
        torch.manual_seed(self.seed + 1)
        lengths = self.lengths if self.form == "packed" else self.lengths[:1] * len(self.lengths)
        lengths = tuple(sorted(lengths, reverse=True)) if self.sorted else lengths
        sequences = [torch.randn(length, self.inputs) * scale for length in lengths]
        if self.form == "single":
            given: Any = sequences[0]
        elif self.form == "packed":
            given = pack_sequence(sequences, enforce_sorted=self.sorted)
        else:
            given = pad_sequence(sequences, batch_first=self.batch_first)
        if not self.states:
            return (given,)
        count = self.layers * (1 + self.both_ways)
        batch = () if self.form == "single" else (len(lengths),)
        hidden = torch.randn(count, *batch, self.projected or self.hidden)
        if self.mode != "LSTM":
            return given, hidden
        return given, (hidden, torch.randn(count, *batch, self.hidden))


NAMED: dict[str, Case] = {
    "lstm": Case(),
    "lstm, two layers, both ways": Case(layers=2, both_ways=True, batch_first=True, states=True),
    "lstm, projected": Case(layers=2, projected=3, both_ways=True, form="packed", states=True),
    "lstm, projected, without bias": Case(projected=5, bias=False, hidden=18),
    "lstm, one sequence": Case(form="single", batch_first=True, states=True),
    "lstm, packed in order": Case(form="packed", sorted=True, both_ways=True),
    "lstm of 70": Case(inputs=33, hidden=70, both_ways=True),
    "gru": Case("GRU", layers=2, batch_first=True),
    "gru, packed": Case("GRU", both_ways=True, form="packed", states=True, bias=False),
    "gru of 17": Case("GRU", hidden=17, form="single"),
    "rnn": Case("TANH", both_ways=True, states=True),
    "rnn, relu": Case("RELU", layers=2, form="packed", hidden=16),
}


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Draw a case of at most 3 layers of 40 channels and 4 sequences of 6 steps."""
    mode = draw(st.sampled_from(["LSTM", "GRU", "TANH", "RELU"]))
    hidden = draw(st.integers(2, 40))
    projected = draw(st.integers(0, hidden - 1)) if mode == "LSTM" else 0
    booleans = {
        name: draw(st.booleans())
        for name in ("both_ways", "bias", "batch_first", "sorted", "states")
    }
    return Case(
        mode, draw(st.integers(1, 40)), hidden, draw(st.integers(1, 3)), projected=projected,
        lengths=tuple(draw(st.lists(st.integers(1, 6), min_size=1, max_size=4))),
        form=draw(st.sampled_from(["single", "batch", "packed"])),
        seed=draw(st.integers(0, 2**20)), **booleans,
    )  # fmt: skip


def assert_alike(found: Any, wanted: Any) -> None:
    """Assert that two outputs have one structure, and tensors of one shape and dtype."""
    assert type(found) is type(wanted)
    if isinstance(wanted, Tensor):
        assert (found.shape, found.dtype) == (wanted.shape, wanted.dtype)
    elif isinstance(wanted, PackedSequence):
        assert_alike(found.data, wanted.data)
        for one, other in zip(found[1:], wanted[1:], strict=True):
            assert (one is None and other is None) or torch.equal(one, other)
    else:
        assert len(found) == len(wanted)
        for one, other in zip(found, wanted, strict=True):
            assert_alike(one, other)


def assert_same(found: Any, wanted: Any) -> None:
    """Assert that two outputs are alike to the bit."""
    assert_alike(found, wanted)
    for one, other in zip(tensors_in(found), tensors_in(wanted), strict=True):
        assert torch.equal(one, other)
