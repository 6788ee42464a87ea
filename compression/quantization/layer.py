"""A convolution or linear layer on int8 codes."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import _get_current_dispatch_mode

from compression.affine import INT8_MAX, INT8_MIN, TINY, QParams, choose_qparams, quantize
from compression.errors import CompressionError
from compression.graph import ChannelScale
from compression.layers import filters, unfilters

LAYERS = (
    nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d,
    nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d, ChannelScale,
)  # fmt: skip
"""The layers that have codes; not their subclasses, which may compute something else."""
_CONVOLUTIONS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_TRANSPOSED = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}
_MOST_BIAS = 2**30
"""Steps of a bias: what is left of int32 is for the products."""
_EXACT = 2**24
"""Whole numbers up to here are exact in float32, and so are their sums in any order."""


class QuantizedLayer(nn.Module):
    """A convolution or linear layer on codes, with int32 bias and requantization.

    Weights are symmetric per output channel; the bias has the scale input x weight, and a weight's
    scale is as large as its bias needs to fit. Without `output` (the network's last layer) real
    numbers are returned. A clamp after the layer is the end of the output's range. A residual's codes
    are added before the requantization, which rounds once.
    """

    parameter_buffers = ("codes", "bias")
    codes: Tensor
    weight_scale: Tensor
    bias: Tensor
    input_scale: Tensor
    input_zero_point: Tensor
    output_scale: Tensor | None
    output_zero_point: Tensor | None
    residual_scale: Tensor | None
    residual_zero_point: Tensor | None

    def __init__(
        self,
        layer: nn.Module,
        inputs: QParams,
        output: QParams | None,
        name: str,
        *,
        residual: Sequence[QParams] = (),
    ) -> None:
        """Quantize the weight and bias of `layer` for codes of `inputs`, and of a residual if any."""
        super().__init__()
        parameter: Any = layer.weight
        # On the CPU, where ranges lie, so that no device is mixed.
        weight = filters(parameter.detach().cpu(), layer)
        bias: Any = layer.bias if layer.bias is not None else torch.zeros(len(weight))
        bias = bias.detach().double().cpu()
        scale = choose_qparams(weight, axis=0, name=f"{name}.weight").scale
        scale = _scale_for_bias(scale, bias, inputs.scale, name)
        qparams = QParams(scale, torch.zeros_like(scale, dtype=torch.int32), axis=0)
        self.register_buffer("codes", unfilters(quantize(weight, qparams), layer).contiguous())
        self.register_buffer("weight_scale", scale)
        self.register_buffer(
            "bias", torch.round(bias / _steps(inputs.scale, scale)).to(torch.int32)
        )
        self.register_buffer("input_scale", inputs.scale.clone())
        self.register_buffer("input_zero_point", inputs.zero_point.clone())
        for role, meaning in (("output", output), ("residual", next(iter(residual), None))):
            for field in ("scale", "zero_point"):
                value = None if meaning is None else getattr(meaning, field).clone()
                self.register_buffer(f"{role}_{field}", value)
        if not torch.isfinite(self.multiplier()).all():
            raise CompressionError(
                f"{name}: its outputs in calibration reach {float(output.scale) * 255:.3g} only, "  # type: ignore[union-attr]
                "too little beside its weights for float32; calibrate on other inputs"
            )
        self.options: dict[str, Any] = {}
        if not isinstance(layer, nn.Linear):
            fields = ("stride", "padding", "dilation", "groups")
            self.options = {field: getattr(layer, field) for field in fields}
        self.transposed = isinstance(layer, nn.modules.conv._ConvTransposeNd)
        if self.transposed:
            self.options["output_padding"] = layer.output_padding

    @property
    def linear(self) -> bool:
        """Tell whether channels are the last axis of inputs and outputs, not the second."""
        return not self.options

    def multiplier(self) -> Tensor:
        """Return what makes sums units of the output, or real numbers; float32, per channel."""
        unit = torch.ones_like(self.input_scale) if self.output_scale is None else self.output_scale
        scale = self.input_scale.double() * self.weight_scale.double()
        return (scale / unit.double()).float()

    def sums(self, codes: Tensor) -> Tensor:
        """Return the integer sums, bias included, rounded once to float32; padding is the real 0."""
        # Contiguous: torch's convolution of channels-last inputs with a bias reads memory that is not
        # its own where a window lies within the border (2.14.1: 3x3x2x1 by a 1x1 kernel, padding 1).
        centred = (codes.float() - self.input_zero_point).contiguous()
        magnitudes = self.codes.abs().flatten(0 if self.transposed else 1)
        largest = magnitudes.sum(-1, dtype=torch.int64).amax()
        most = (centred.abs().amax() if centred.numel() else 0) * largest
        if most + self.bias.double().abs().amax() < _EXACT:
            return self._linear(centred, self.codes.float(), self.bias.float())
        bias = self.bias.double()
        if most >= 16 * _EXACT or _get_current_dispatch_mode() is not None:  # who counts sees one
            return self._linear(centred.double(), self.codes.double(), bias).float()
        # Two exact products in float32 cost less than one in float64.
        high = torch.floor(centred / 16)
        weight = self.codes.float()
        low = self._linear(centred - 16 * high, weight, None).double()
        total = low + 16 * self._linear(high, weight, None).double()
        return (total + self._by_channel(bias, total)).float()

    def _by_channel(self, values: Tensor, sums: Tensor) -> Tensor:
        """Return a value per channel in the shape that goes with `sums`, of images or of one image."""
        sides = 0 if self.linear or sums.ndim == 2 else self.codes.ndim - 2
        return values.view(-1, *[1] * sides)

    def _linear(self, inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if self.linear:
            return F.linear(inputs, weight, bias)
        rank = weight.ndim - 2
        functions = _TRANSPOSED if self.transposed else _CONVOLUTIONS
        if rank == 1 and inputs.ndim == 2:  # a ChannelScale of rows
            return functions[rank](inputs[..., None], weight, bias, **self.options)[..., 0]
        return functions[rank](inputs, weight, bias, **self.options)

    def forward(self, codes: Tensor, residual: Tensor | None = None) -> Tensor:
        """Return the output's codes, or real numbers for the network's last layer."""
        sums = self.sums(codes)
        outputs = sums.mul_(self._by_channel(self.multiplier(), sums))
        if (
            residual is not None
            and self.residual_scale is not None
            and self.residual_zero_point is not None
        ):
            unit = self.output_scale if self.output_scale is not None else 1.0
            # in float32: an int8 tensor minus a 0-dim int32 wraps round in int8
            centred = residual.float() - self.residual_zero_point
            outputs = outputs + centred * (self.residual_scale / unit)
        if self.output_zero_point is None:
            return outputs
        codes = outputs.round_().add_(self.output_zero_point).clamp_(INT8_MIN, INT8_MAX)
        return codes.to(torch.int8)


def _steps(input_scale: Tensor, weight_scale: Tensor) -> Tensor:
    """Return the size of a bias's steps: float32's product, unless it is too small for float32."""
    product = input_scale * weight_scale
    exact = input_scale.double() * weight_scale.double()
    return torch.where(product > TINY, product.double(), exact)


def _scale_for_bias(scale: Tensor, bias: Tensor, input_scale: Tensor, name: str) -> Tensor:
    """Return the scales of weights, raised where a bias would be more than _MOST_BIAS steps.

    Beside such a bias the weights that get coarser are below the resolution of the output.
    """
    needed = (bias.abs() / (_MOST_BIAS * input_scale.double())).float()
    if not torch.isfinite(needed).all():
        raise CompressionError(
            f"{name}.bias: expected finite numbers within float32 of the input's scale "
            f"{float(input_scale):.3g}, found {float(bias.abs().max()):.3g}; calibrate on other inputs"
        )
    return torch.maximum(scale, needed)
