"""The layers of a statically quantized network: int8 codes in, int8 codes out.

The reference executor computes on integers held in float32: products and sums below 2^24 are exact,
larger ones are off by less than 2^-24 of themselves a step, far below half a code of the output.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compression.affine import QParams, choose_qparams, quantize
from compression.layers import channel_axis


class Codes(nn.Module):
    """Base of the layers that emit codes: scale and zero point of their output, 0-dim."""

    output_scale: Tensor
    output_zero_point: Tensor

    def __init__(self, output: QParams) -> None:
        """Emit codes of `output`."""
        super().__init__()
        self.register_buffer("output_scale", output.scale.clone())
        self.register_buffer("output_zero_point", output.zero_point.clone())

    def encode(self, quotient: Tensor) -> Tensor:
        """Return the codes (int8) of real numbers already divided by the output's scale."""
        return (torch.round(quotient) + self.output_zero_point).clamp_(-128, 127).to(torch.int8)


class Quantize(Codes):
    """Real inputs -> codes."""

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the codes of `inputs`."""
        return self.encode(inputs / self.output_scale)


class Dequantize(nn.Module):
    """Codes -> real outputs."""

    scale: Tensor
    zero_point: Tensor

    def __init__(self, qparams: QParams) -> None:
        """Read codes of `qparams`."""
        super().__init__()
        self.register_buffer("scale", qparams.scale.clone())
        self.register_buffer("zero_point", qparams.zero_point.clone())

    def forward(self, codes: Tensor) -> Tensor:
        """Return scale (codes - zero point), float32."""
        return (codes.float() - self.zero_point) * self.scale


class QuantizedLayer(nn.Module):
    """A convolution or linear layer on codes, with int32 bias and requantization.

    Weights are symmetric per output channel; the bias has the scale input x weight, saturated to
    int32. Without `output` (the network's last layer) real numbers are returned. A ReLU behind the
    layer is the lower end of the output's range: its zero point is then the smallest code. A
    residual's codes are added before the requantization, which rounds once.
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
        weight = parameter.detach().cpu()  # where ranges lie, so that no device is mixed
        self.axis = channel_axis(layer)
        qparams = choose_qparams(weight, axis=self.axis, name=f"{name}.weight")
        bias: Any = layer.bias if layer.bias is not None else torch.zeros(len(qparams.scale))
        steps = torch.round(bias.detach().double().cpu() / (inputs.scale * qparams.scale).double())
        self.register_buffer("codes", quantize(weight, qparams))
        self.register_buffer("weight_scale", qparams.scale)
        self.register_buffer("bias", steps.clamp(-(2**31), 2**31 - 1).to(torch.int32))
        self.register_buffer("input_scale", inputs.scale.clone())
        self.register_buffer("input_zero_point", inputs.zero_point.clone())
        for role, meaning in (("output", output), ("residual", next(iter(residual), None))):
            for field in ("scale", "zero_point"):
                value = None if meaning is None else getattr(meaning, field).clone()
                self.register_buffer(f"{role}_{field}", value)
        self.options: dict[str, Any] = {}
        if not isinstance(layer, nn.Linear):
            fields = ("stride", "padding", "dilation", "groups")
            self.options = {field: getattr(layer, field) for field in fields}
        self.transposed = isinstance(layer, nn.ConvTranspose2d)
        if self.transposed:
            self.options["output_padding"] = layer.output_padding

    def sums(self, codes: Tensor) -> Tensor:
        """Return the integer sums, bias included, as float32; padding is the real number 0."""
        centred = codes.float() - self.input_zero_point
        weight = self.codes.float()
        bias = self.bias.float()
        if not self.options:
            return F.linear(centred, weight, bias)
        function = F.conv_transpose2d if self.transposed else _CONVOLUTIONS[weight.ndim - 2]
        return function(centred, weight, bias, **self.options)

    def forward(self, codes: Tensor, residual: Tensor | None = None) -> Tensor:
        """Return the output's codes, or real numbers for the network's last layer."""
        sums = self.sums(codes)
        scale = self.input_scale.double() * self.weight_scale.double()
        # In units of the output: 1 where it is real.
        unit = torch.ones_like(self.input_scale) if self.output_scale is None else self.output_scale
        multiplier = (scale / unit.double()).float()
        outputs = sums.mul_(multiplier.view(-1, *[1] * (sums.ndim - 2)))
        if (
            residual is not None
            and self.residual_scale is not None
            and self.residual_zero_point is not None
        ):
            # in float32: an int8 tensor minus a 0-dim int32 wraps round in int8
            centred = residual.float() - self.residual_zero_point
            outputs += centred * (self.residual_scale / unit)
        if self.output_zero_point is None:
            return outputs
        codes = outputs.round_().add_(self.output_zero_point).clamp_(-128, 127)
        return codes.to(torch.int8)


_CONVOLUTIONS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


class QuantizedJoin(Codes):
    """Addition or concatenation of codes with scales of their own, requantized to one."""

    input_scales: Tensor
    input_zero_points: Tensor

    def __init__(self, inputs: list[QParams], output: QParams, *, dim: int | None) -> None:
        """Add the inputs, or concatenate them along `dim`."""
        super().__init__(output)
        self.register_buffer("input_scales", torch.stack([q.scale for q in inputs]))
        self.register_buffer("input_zero_points", torch.stack([q.zero_point for q in inputs]))
        self.dim = dim

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return the codes of the sum or of the concatenation."""
        ratios = self.input_scales / self.output_scale
        parts = [
            (codes.float() - self.input_zero_points[i]) * ratios[i]
            for i, codes in enumerate(inputs)
        ]
        return self.encode(
            sum(parts[1:], parts[0]) if self.dim is None else torch.cat(parts, self.dim)
        )


class QuantizedMean(Codes):
    """An average (pooling) of codes, requantized."""

    input_scale: Tensor
    input_zero_point: Tensor

    def __init__(self, pool: nn.Module, inputs: QParams, output: QParams) -> None:
        """Apply `pool`, a linear function without parameters."""
        super().__init__(output)
        self.register_buffer("input_scale", inputs.scale.clone())
        self.register_buffer("input_zero_point", inputs.zero_point.clone())
        self.pool = pool

    def forward(self, codes: Tensor) -> Tensor:
        """Return the codes of the average."""
        means = self.pool(codes.float() - self.input_zero_point)
        return self.encode(means * (self.input_scale / self.output_scale))


class OnCodes(nn.Module):
    """A monotone function (max-pool) applied to codes as they are."""

    def __init__(self, function: nn.Module) -> None:
        """Apply `function`, which need not know int8."""
        super().__init__()
        self.function = function

    def forward(self, codes: Tensor) -> Tensor:
        """Return the function's codes."""
        outputs: Tensor = self.function(codes.float())
        return outputs.to(torch.int8)


class ClampCodes(nn.Module):
    """A ReLU or ReLU6 that no layer before it could take in: a clamp in its input's codes."""

    low: Tensor
    high: Tensor

    def __init__(self, qparams: QParams, ceiling: float | None) -> None:
        """Clamp to 0 and, where it is given, `ceiling`."""
        super().__init__()
        top = torch.tensor(127, dtype=torch.int32)
        if ceiling is not None:
            steps = torch.round(ceiling / qparams.scale)
            top = (steps + qparams.zero_point).clamp(max=127).to(torch.int32)
        self.register_buffer("low", qparams.zero_point.clone())
        self.register_buffer("high", top)

    def forward(self, codes: Tensor) -> Tensor:
        """Return the clamped codes."""
        return codes.clamp(self.low, self.high).to(torch.int8)
