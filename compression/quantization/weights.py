"""Weight-only quantization: integer codes in memory and file, arithmetic in float32."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compression.affine import QParams, choose_qparams, dequantize, quantize
from compression.errors import UnsupportedTypeError
from compression.layers import compressible_layers, copy_model, replace_layer


class WeightQuantizedLayer(nn.Module):
    """A convolution or linear layer whose weight is dequantized at each call."""

    parameter_buffers = ("codes",)
    codes: Tensor
    scale: Tensor

    def __init__(
        self, layer: nn.Module, name: str, *, num_bits: int, group_size: int | None
    ) -> None:
        """Take over `layer`, whose weight becomes codes per output channel or per group."""
        super().__init__()
        if not isinstance(layer, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d):
            raise UnsupportedTypeError(
                f"{name}: weight-only quantization knows nn.Linear and nn.Conv1d to 3d, found "
                f"{type(layer).__name__}"
            )
        axis = 0 if group_size is None else None
        weight = layer.weight
        qparams = choose_qparams(
            weight, num_bits=num_bits, axis=axis, group_size=group_size, name=f"{name}.weight"
        )
        self.num_bits, self.group_size = num_bits, group_size
        self.register_buffer("codes", quantize(weight, qparams))
        self.register_buffer("scale", qparams.scale)
        self._qparams: QParams | None = None
        self.layer = layer
        del layer.weight
        layer.register_parameter("weight", None)

    def weight(self) -> Tensor:
        """Return the weight that the codes stand for, float32."""
        if self._qparams is None or self._qparams.scale is not self.scale:
            # Once a device: to check the scales is to wait for a GPU.
            axis = 0 if self.group_size is None else None
            zero_point = torch.zeros_like(self.scale, dtype=torch.int32)
            self._qparams = QParams(
                self.scale, zero_point, self.num_bits, True, axis, self.group_size
            )
        return dequantize(self.codes, self._qparams)

    def forward(self, inputs: Tensor) -> Tensor:
        """Apply the layer with its dequantized weight."""
        if isinstance(self.layer, nn.Linear):
            return F.linear(inputs, self.weight(), self.layer.bias)
        outputs: Tensor = self.layer._conv_forward(inputs, self.weight(), self.layer.bias)  # type: ignore[operator]
        return outputs


def quantize_weights(
    model: nn.Module, *, num_bits: int = 8, group_size: int | None = None
) -> nn.Module:
    """Return a copy whose convolutions and linear layers hold symmetric codes of 2 to 8 bits.

    One scale an output channel, or one for each `group_size` consecutive weights of a channel. The
    arithmetic stays in float32: this makes the file smaller, not the prediction faster.
    """
    quantized = copy_model(model).eval()
    for name, layer in compressible_layers(quantized).items():
        replacement = WeightQuantizedLayer(layer, name, num_bits=num_bits, group_size=group_size)
        if layer is quantized:
            return replacement
        replace_layer(quantized, name, replacement)
    return quantized
