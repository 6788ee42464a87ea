"""What an LSTM, a GRU or an RNN is called with and returns, in rows of all steps and states."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import PackedSequence

from compression.errors import CompressionError, UnsupportedTypeError

Direction = Callable[[str, Tensor, list[int], list[Tensor]], Tensor]
"""How the names of its parameters end, rows (float32) step after step, how many each step has (never
more than the one before), and the states, which it leaves as the last step does -> output rows."""


@torch.no_grad()
def run_layers(layer: Any, input: Any, hx: Any, run: Direction) -> Any:
    """Return what `layer`, an nn.RNNBase, returns for `input` and `hx`, by `run` per direction.

    Rows and states are float32 within, and in the dtype of the input without. CompressionError for
    shapes that are not the layer's, UnsupportedTypeError for other than real tensors of one dtype.
    """
    packed = isinstance(input, PackedSequence)
    values = input.data if packed else input
    _check(layer, values, (2,) if packed else (2, 3))
    if packed:
        rows, sizes = values, input.batch_sizes.tolist()
    else:
        steps = values.unsqueeze(1) if values.ndim == 2 else values
        steps = steps.transpose(0, 1) if layer.batch_first and values.ndim == 3 else steps
        rows, sizes = steps.flatten(0, 1), [steps.shape[1]] * steps.shape[0]
    if not sizes:
        raise CompressionError(f"{_kind(layer)} expects at least one step, found none")
    states, rows = _states(layer, input, hx, sizes[0]), rows.float()
    for i in range(layer.num_layers):
        ends = [f"_l{i}", f"_l{i}_reverse"][: 1 + layer.bidirectional]
        rows = F.dropout(rows, layer.dropout, layer.training) if i else rows
        parts = [
            run(end, rows, sizes, [state[k] for state in states])
            for k, end in enumerate(ends, i * len(ends))
        ]
        rows = parts[0] if len(parts) == 1 else torch.cat(parts, 1)
    return _returned(layer, input, rows, states)


def is_backward(end: str) -> bool:
    """Tell whether parameters whose names end so run from the last step to the first."""
    return end.endswith("_reverse")


def _kind(layer: Any) -> str:
    return f"{type(layer).__name__} of {layer.input_size} inputs"


def _check(layer: Any, values: Any, axes: tuple[int, ...]) -> None:
    if not isinstance(values, Tensor) or values.is_nested or not values.is_floating_point():
        found = values.dtype if isinstance(values, Tensor) else type(values).__name__
        raise UnsupportedTypeError(
            f"{_kind(layer)} expects real inputs or a packed sequence of them, found {found}"
        )
    if values.ndim not in axes or values.shape[-1] != layer.input_size:
        shape = f"(batch, steps, {layer.input_size})" if layer.batch_first else ""
        shape = shape or f"(steps, batch, {layer.input_size})"
        raise CompressionError(
            f"{_kind(layer)} expects {shape} or (steps, {layer.input_size}), found the shape "
            f"{tuple(values.shape)}"
        )


def _states(layer: Any, input: Any, hx: Any, batch: int) -> list[Tensor]:
    """Return the hidden states (layers x directions, batch, channels), and an LSTM's cells."""
    values = input.data if isinstance(input, PackedSequence) else input
    single = values is input and values.ndim == 2
    widths = [layer.proj_size or layer.hidden_size, layer.hidden_size]
    widths = widths if layer.mode == "LSTM" else widths[1:]
    shapes = [(layer.num_layers * (1 + layer.bidirectional), batch, width) for width in widths]
    if hx is None:
        return [values.new_zeros(shape, dtype=torch.float32) for shape in shapes]
    given = list(hx) if layer.mode == "LSTM" and isinstance(hx, tuple | list) else [hx]
    wanted = [(shape[0], shape[2]) if single else shape for shape in shapes]
    found = [tuple(g.shape) if isinstance(g, Tensor) else type(g).__name__ for g in given]
    if found != wanted:
        raise CompressionError(f"{_kind(layer)} expects states {wanted}, found {found}")
    if any(state.dtype != values.dtype for state in given):
        raise UnsupportedTypeError(
            f"{_kind(layer)} expects states of its input's {values.dtype}, found "
            + ", ".join(str(state.dtype) for state in given)
        )
    if values is not input and input.sorted_indices is not None:
        given = [state.index_select(1, input.sorted_indices) for state in given]
    pairs = zip(given, shapes, strict=True)
    return [values.new_empty(s, dtype=torch.float32).copy_(g.view(s)) for g, s in pairs]


def _returned(layer: Any, input: Any, rows: Tensor, states: list[Tensor]) -> Any:
    values = input.data if isinstance(input, PackedSequence) else input
    rows, states = rows.to(values.dtype), [state.to(values.dtype) for state in states]
    outputs: Any
    if values is not input:
        outputs = PackedSequence(rows, *input[1:])
        if input.unsorted_indices is not None:
            states = [state.index_select(1, input.unsorted_indices) for state in states]
    elif values.ndim == 2:
        outputs, states = rows, [state.squeeze(1) for state in states]
    else:
        batch = states[0].shape[1]
        outputs = rows.view(values.shape[layer.batch_first], batch, rows.shape[1])
        outputs = outputs.transpose(0, 1) if layer.batch_first else outputs
    return outputs, tuple(states) if layer.mode == "LSTM" else states[0]
