"""Dynamic INT8: layers with integer weights, activations quantized at each call."""

from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor, nn

from compression.errors import CompressionError, UnsupportedTypeError
from compression.quantization.products import DynamicWeight
from compression.quantization.recurrent import DynamicQuantizedRecurrent
from compression.quantization.replacement import Codes, replace_layers

KINDS = (nn.Linear, nn.LSTM, nn.GRU, nn.RNN)


class DynamicQuantizedLinear(DynamicWeight):
    """A linear layer in int8 x int8 -> int32: weights per output, activations per input row."""

    bias: Tensor | None

    def __init__(self, layer: nn.Linear, name: str, codes: Codes | None = None) -> None:
        """Quantize the weight of `layer`, or take its codes; the bias stays as it is."""
        super().__init__(layer.weight, f"{name}.weight", codes)
        self.register_parameter("bias", layer.bias)

    def forward(self, input: Tensor) -> Tensor:  # torch's name: it may be passed by keyword
        """Return `input` (..., features) times the weight, plus the bias, in its dtype."""
        if input.is_nested:  # what nn.TransformerEncoder makes of a batch with a padding mask
            return torch.nested.as_nested_tensor([self(part) for part in input.unbind()])
        if not input.is_floating_point():
            raise UnsupportedTypeError(f"a linear layer expects real inputs, found {input.dtype}")
        if not input.ndim or input.shape[-1] != self.in_features:
            raise CompressionError(
                f"a linear layer of {self.in_features} inputs expects (..., {self.in_features}), "
                f"found the shape {tuple(input.shape)}"
            )
        outputs = self.products(input.reshape(-1, self.in_features).float())
        if self.bias is not None:
            outputs = outputs + self.bias
        return outputs.reshape(*input.shape[:-1], self.out_features).to(input.dtype)


def quantize_dynamic(model: nn.Module, *, keep: Collection[str] = ()) -> nn.Module:
    """Return a copy whose linear and recurrent layers are INT8; convolutions stay in float.

    Weights are symmetric per output channel, activations affine per row at run time, sums int32. The
    projections of attention are linear layers, too: nn.MultiheadAttention is written out as
    q_proj, k_proj, v_proj and out_proj around the same products, whose arithmetic stays in float. In
    nn.LSTM, nn.GRU and nn.RNN the hidden state is quantized at each step, and gates stay in float.
    What stays in float is listed by left_out: other layers, recurrent cells, subclasses of these and
    of attention, those with hooks, and those whose dotted names are in `keep`. CompressionError where
    that is every layer. Section 4.5 of the paper has linear layers alone.

    >>> small = quantize_dynamic(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)))
    >>> small[0].codes.dtype, small(torch.zeros(3, 4)).shape
    (torch.int8, torch.Size([3, 2]))
    """
    return make_dynamic(model, keep=keep)


def make_dynamic(
    model: nn.Module,
    *,
    keep: Collection[str] = (),
    attention: Collection[str] | None = None,
    later: Collection[str] | None = None,
) -> nn.Module:
    """Return what quantize_dynamic does, with the attention and LATER layers at these names alone."""

    def make(layer: Any, name: str, codes: Codes | None) -> nn.Module:
        if isinstance(layer, nn.RNNBase):
            return DynamicQuantizedRecurrent(layer, name)
        return DynamicQuantizedLinear(layer, name, codes)

    quantized = replace_layers(
        model,
        KINDS,
        make,
        verb="dynamic quantization",
        keep=keep,
        attention=attention,
        later=later,
    )
    for module in quantized.modules():
        if isinstance(module, nn.TransformerEncoderLayer):
            # Its fast path reads its linear layers' weights instead of calling them.
            module.activation_relu_or_gelu = 0
    return quantized
