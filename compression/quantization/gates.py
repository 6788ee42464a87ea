"""Gates of recurrent layers in float32 operations that round once each.

torch's own sigmoid and tanh differ in their last bits from machine to machine, and a bit turns a code
of the next step. Compiled code repeats these operations one by one (integer/native/gates.h). The
polynomials are those of the Cephes library (Moshier 1989, expf.c and tanhf.c).
"""

from collections.abc import Callable

import torch
from torch import Tensor

MOST = 87.0
"""Exponents between -87 and 87 have results that are normal numbers."""
LOG2_E = float.fromhex("0x1.715476p+0")
LN_2 = float.fromhex("0x1.63p-1"), float.fromhex("-0x1.bd0106p-13")
"""Of few bits, so that a multiple is exact, and what is left."""
_EXPONENTIAL = "0x1.a0d2cep-13 0x1.6e879cp-10 0x1.11121p-7 0x1.555382p-5 0x1.555554p-3 0x1p-1"
EXPONENTIAL = tuple(map(float.fromhex, _EXPONENTIAL.split()))
_TANGENT = "-0x1.75e1d4p-8 0x1.52269cp-6 -0x1.b83c5ap-5 0x1.110726p-3 -0x1.555532p-2"
TANGENT = tuple(map(float.fromhex, _TANGENT.split()))
SMALL = 0.625
"""Up to which tanh is a polynomial: beyond, 1 - 2 / (exp(2x) + 1) loses no bits."""


def sigmoid(x: Tensor) -> Tensor:
    """Return 1 / (1 + exp(-x)) of float32 numbers; at least exp(-87)."""
    return 1 / (1 + _exp((-x).clamp(-MOST, MOST)))


def tanh(x: Tensor) -> Tensor:
    """Return the hyperbolic tangent of float32 numbers."""
    size, square = x.abs(), x * x
    small = _horner(TANGENT, square) * square * x + x
    large = 1 - 2 / (_exp((size + size).clamp(max=MOST)) + 1)
    return torch.where(size < SMALL, small, large.copysign(x))


def _exp(x: Tensor) -> Tensor:
    """Return the exponential of numbers from -87 to 87."""
    doublings = torch.round(x * LOG2_E)
    rest = x - doublings * LN_2[0] - doublings * LN_2[1]
    factor = _horner(EXPONENTIAL, rest) * rest * rest + rest + 1
    return factor * ((doublings.int() + 127) << 23).view(torch.float32)


def _horner(coefficients: tuple[float, ...], x: Tensor) -> Tensor:
    value = coefficients[0] * x + coefficients[1]
    for coefficient in coefficients[2:]:
        value = value * x + coefficient
    return value


def _lstm(inputs: Tensor, recurrent: Tensor, states: list[Tensor]) -> list[Tensor]:
    into, forget, new, out = (inputs + recurrent).chunk(4, 1)
    cells = sigmoid(forget) * states[1] + sigmoid(into) * tanh(new)
    return [sigmoid(out) * tanh(cells), cells]


def _gru(inputs: Tensor, recurrent: Tensor, states: list[Tensor]) -> list[Tensor]:
    of_inputs, of_states = inputs.chunk(3, 1), recurrent.chunk(3, 1)
    reset, update = (sigmoid(of_inputs[i] + of_states[i]) for i in (0, 1))
    new = tanh(of_inputs[2] + reset * of_states[2])
    return [new + update * (states[0] - new)]


def _rnn_tanh(inputs: Tensor, recurrent: Tensor, _: list[Tensor]) -> list[Tensor]:
    return [tanh(inputs + recurrent)]


def _rnn_relu(inputs: Tensor, recurrent: Tensor, _: list[Tensor]) -> list[Tensor]:
    return [(inputs + recurrent).relu()]


CELLS: dict[str, Callable[[Tensor, Tensor, list[Tensor]], list[Tensor]]] = {
    "LSTM": _lstm,
    "GRU": _gru,
    "RNN_TANH": _rnn_tanh,
    "RNN_RELU": _rnn_relu,
}
"""By torch's mode: products of the inputs and of the hidden state, and the states -> the new states."""
