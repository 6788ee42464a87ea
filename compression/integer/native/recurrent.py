"""Recurrent layers on codes in compiled code: all steps of a direction in one call."""

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from compression.errors import CompressionError
from compression.integer.native.library import library
from compression.integer.native.linear import (
    NativeDynamicLinear,
    NativeLinear,
    NativeWeightLinear,
    overflows,
)
from compression.modes import ExecutorModel
from compression.quantization import DynamicQuantizedRecurrent, WeightQuantizedRecurrent
from compression.quantization.coded import without
from compression.quantization.products import LONGEST_SUM
from compression.quantization.sequences import is_backward, run_layers

RECURRENT_KERNEL = "native::recurrent_dynamic"
RECURRENT_WEIGHTS_KERNEL = "native::recurrent_weights"
"""The names of what runs a direction of a layer, beside those of torch's profiler."""
CELLS = ("LSTM", "GRU", "RNN_TANH", "RNN_RELU")
"""torch's modes, as recurrent.c counts them."""


class NativeRecurrent(ExecutorModel):
    """An LSTM, a GRU or an RNN whose gates are float32: what the dynamic layer computes, to the bit.

    Where weights alone are codes, states are real numbers, and sums come in another order than torch's.
    """

    layer: Any

    def __init__(self, layer: DynamicQuantizedRecurrent | WeightQuantizedRecurrent) -> None:
        """Pack the codes of each matrix."""
        super().__init__()
        dynamic = isinstance(layer, DynamicQuantizedRecurrent)
        self.kernel = RECURRENT_KERNEL if dynamic else RECURRENT_WEIGHTS_KERNEL
        make: Any = NativeDynamicLinear if dynamic else NativeWeightLinear
        self.products = nn.ModuleDict()
        for name, matrix in layer.matrices.items():
            bias = layer.layer._parameters.get(name.replace("weight", "bias"))
            self.products[name] = make(_linear(matrix, bias))
        self.layer = without(layer.layer, *layer.layer._parameters)

    def __getattr__(self, name: str) -> Any:
        """Return an attribute of the layer, which its parent may read: its hidden size."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name in ("layer", "products"):
                raise
            product: Any = dict(self.products.items()).get(name)
            return getattr(self.layer, name) if product is None else product.weight

    def forward(self, input: Any, hx: Any = None) -> Any:
        """Return outputs, which are packed where `input` is, and the last states."""
        if torch.is_autocast_enabled("cpu") and isinstance(input, Tensor | PackedSequence):
            input = input.float()  # of what layers before it made
        values = input.data if isinstance(input, PackedSequence) else input
        real = isinstance(values, Tensor) and values.dtype == torch.float32
        if not real or values.device.type != "cpu":
            found = f"{values.dtype} on {values.device}" if isinstance(values, Tensor) else values
            raise CompressionError(
                f"this layer was deployed for float32 inputs on the CPU, found {found}; use the "
                "network that was deployed"
            )
        outputs = run_layers(self.layer, input, hx, self._run)
        self.__dict__["kernels_ran"] = {self.kernel: self.layer.num_layers}
        return outputs

    @property
    def _group(self) -> int:
        """How many weights share a scale, in each matrix: those of the widest, or all of it."""
        return max(getattr(product, "group", 1) for product in self.products.values())

    def _run(self, end: str, rows: Tensor, sizes: list[int], states: list[Tensor]) -> Tensor:
        parts: dict[str, Any] = dict(self.products.items())
        recurrent, projection = parts[f"weight_hh{end}"], parts.get(f"weight_hr{end}")
        inputs = parts[f"weight_ih{end}"](rows)
        outputs = torch.empty(len(rows), states[0].shape[1], dtype=torch.float32, device="cpu")
        counts = torch.tensor(sizes, dtype=torch.int64, device="cpu")
        done = library().recurrent(
            CELLS.index(self.layer.mode), getattr(recurrent, "bits", 0), self._group,
            inputs.data_ptr(), *_pointers(recurrent),
            None if recurrent.bias is None else recurrent.bias.data_ptr(), *_pointers(projection),
            counts.data_ptr(), len(sizes), is_backward(end), states[0].data_ptr(),
            states[-1].data_ptr(), outputs.data_ptr(), self.layer.hidden_size, outputs.shape[1],
            torch.get_num_threads(),
        )  # fmt: skip
        if not done:
            raise torch.OutOfMemoryError(f"no memory for the codes of {sizes[0]} rows")
        return outputs


def native_recurrent(layer: nn.Module) -> NativeRecurrent | None:
    """Return a quantized recurrent layer in compiled code, None for a layer that it does not know."""
    if not isinstance(layer, DynamicQuantizedRecurrent | WeightQuantizedRecurrent):
        return None
    matrices: list[Any] = list(layer.matrices.values())
    real = [*(matrix.like for matrix in matrices), *layer.layer.parameters()]
    if any(t.dtype != torch.float32 or t.device.type != "cpu" for t in real):
        return None
    if isinstance(layer, DynamicQuantizedRecurrent):
        fit = all(m.in_features <= LONGEST_SUM for m in matrices)
    else:
        fit = all(m.codes.numel() and not overflows(m) for m in matrices)
    return NativeRecurrent(layer) if fit else None


def _linear(matrix: Any, bias: Tensor | None) -> Any:
    """Return a matrix and its bias as a linear layer is read."""
    options = {
        name: getattr(matrix, name) for name in ("num_bits", "group_size") if hasattr(matrix, name)
    }
    outputs, inputs = matrix.codes.shape
    return SimpleNamespace(
        in_features=inputs, out_features=outputs, bias=bias, codes=matrix.codes,
        scale=matrix.scale, **options,
    )  # fmt: skip


def _pointers(product: NativeLinear | None) -> list[int | None]:
    parts = (getattr(product, name, None) for name in ("packed", "sums", "scale"))
    return [None if part is None else part.data_ptr() for part in parts]
