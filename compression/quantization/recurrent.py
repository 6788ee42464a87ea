"""Dynamic INT8 of recurrent layers: the hidden state is quantized at each step."""

from itertools import accumulate
from typing import Any

from torch import Tensor, nn

from compression.quantization.coded import CodedRecurrent
from compression.quantization.gates import CELLS
from compression.quantization.products import DynamicWeight
from compression.quantization.sequences import is_backward, run_layers


class DynamicQuantizedRecurrent(CodedRecurrent):
    """An LSTM, a GRU or an RNN in int8 x int8 -> int32, whose gates and states are float32.

    Inputs of all steps and the hidden state of each step are quantized per row, as in a dynamic
    linear layer; so is what an LSTM projects. A call takes and gives what torch's layer does, without
    gradients. Hochreiter and Schmidhuber 1997; Cho et al. 2014, arXiv:1406.1078.
    """

    def __init__(self, layer: nn.RNNBase, name: str) -> None:
        """Make codes of each matrix of `layer`; its biases stay as they are."""
        super().__init__(layer, name, DynamicWeight)

    def forward(self, input: Any, hx: Any = None) -> Any:
        """Return outputs, which are packed where `input` is, and the last states."""
        return run_layers(self.layer, input, hx, self._run)

    def bias_of(self, name: str) -> Tensor | None:
        """Return a bias in float32, None where the layer has none."""
        bias: Tensor | None = self.layer._parameters.get(name)
        return None if bias is None else bias.detach().float()

    def _run(self, end: str, rows: Tensor, sizes: list[int], states: list[Tensor]) -> Tensor:
        weights: dict[str, Any] = dict(self.matrices.items())
        recurrent, projection = weights[f"weight_hh{end}"], weights.get(f"weight_hr{end}")
        inputs = _plus(weights[f"weight_ih{end}"].products(rows), self.bias_of(f"bias_ih{end}"))
        bias, sums = self.bias_of(f"bias_hh{end}"), recurrent.sums()
        outputs = rows.new_empty(len(rows), states[0].shape[1])
        steps = list(zip(accumulate([0, *sizes]), sizes, strict=False))
        for first, size in steps[::-1] if is_backward(end) else steps:
            held, part = [state[:size] for state in states], slice(first, first + size)
            products = _plus(recurrent.products(held[0], sums), bias)
            made = CELLS[self.layer.mode](inputs[part], products, held)
            if projection is not None:
                made[0] = projection.products(made[0])
            for state, value in zip(held, made, strict=True):
                state.copy_(value)
            outputs[part] = made[0]
        return outputs


def _plus(products: Tensor, bias: Tensor | None) -> Tensor:
    return products if bias is None else products + bias
