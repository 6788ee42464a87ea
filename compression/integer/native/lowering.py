"""A statically quantized network, node by node, as steps over its values."""

from typing import Any

import torch
from torch import Tensor, fx, nn

from compression.errors import UnsupportedTypeError
from compression.integer.kernels import unsigned_zero
from compression.integer.native.layout import Layout
from compression.integer.native.step import Kind, Step, step
from compression.integer.native.windows import (
    convolution_fields,
    depthwise_fields,
    mean_window,
    padded,
    window_of,
)
from compression.quantization import modules as q

MAX_PRODUCT = 255 * 127
INT32 = 2**31


class Lowering:
    """Writes steps in the network's order; `tensors` holds what they point into."""

    def __init__(self, layout: Layout) -> None:
        """Write nothing yet."""
        self.layout = layout
        self.steps: list[Step] = []
        self.tensors: list[Tensor] = []

    def lower(self) -> None:
        """Write every step; UnsupportedTypeError names a layer that has no kernel."""
        for node in self.layout.network.graph.nodes:
            layer = self.layout.module(node)
            if layer is not None and self.layout.root(node) is node:
                self._layer(node, layer)
            self.layout.release(node)

    def _layer(self, node: fx.Node, layer: nn.Module) -> None:
        match layer:
            case q.Quantize():
                self._quantize(node, layer)
            case q.QuantizedLayer() if not layer.transposed and layer.codes.ndim in (2, 4):
                self._compressible(node, layer)
            case q.OnCodes(function=nn.MaxPool2d(ceil_mode=False)):
                self._max_pool(node, layer)
            case q.QuantizedMean():
                self._mean(node, layer)
            case q.QuantizedJoin(dim=None):
                self._add(node, layer)
            case q.QuantizedJoin():
                self._concatenate(node, layer)
            case q.ClampCodes():
                self._clamp(node, layer)
            case q.Dequantize():
                self._map(node.args[0], float(layer.scale), self._output(node, None))
            case _:
                raise _unknown(node, layer)

    def _emit(self, kind: Kind, **fields: Any) -> None:
        made, kept = step(kind, **fields)
        self.steps.append(made)
        self.tensors += kept

    def _output(self, node: fx.Node, zero: Tensor | int | None) -> dict[str, Any]:
        """Return the fields that say where a step writes `node`; without zero point, real numbers."""
        channels, height, width = self.layout.spatial(node)
        if zero is None:
            if height * width != 1:
                raise UnsupportedTypeError(f"{node.target}: the real output must be a row an image")
            place = torch.zeros(1, dtype=torch.int32)
            return {"output_offsets": place, "output_stride": channels, "pixels": 1, "real": 1}
        value = self.layout.take(node, zero if isinstance(zero, int) else unsigned_zero(zero))
        return {
            "output": value.memory,
            "output_stride": value.geometry.stride,
            "output_offsets": value.geometry.all_offsets(),
            "output_zero": value.geometry.zero,
            "pixels": height * width,
        }

    def _residual(self, node: Any, ratio: Tensor) -> dict[str, Any]:
        value = self.layout.value(node)
        return {
            "residual": value.memory,
            "residual_stride": value.geometry.stride,
            "residual_offsets": value.geometry.all_offsets(),
            "residual_zero": value.geometry.zero,
            "residual_ratio": float(ratio),
        }

    def _quantize(self, node: fx.Node, layer: q.Quantize) -> None:
        channels, height, width = self.layout.spatial(node)
        self._emit(
            Kind.QUANTIZE, channels=channels, width=width, plane=height * width,
            input_scale=float(layer.output_scale), **self._output(node, layer.output_zero_point),
        )  # fmt: skip

    def _compressible(self, node: fx.Node, layer: q.QuantizedLayer) -> None:
        inputs = self.layout.value(node.args[0])
        geometry, outputs = inputs.geometry, self.layout.spatial(node)
        window, weights = window_of(layer, geometry.sides), layer.codes
        assert window is not None
        if weights.ndim == 2:
            weights = weights.view(len(weights), *geometry.sides)
        groups = layer.options.get("groups", 1)
        depthwise = groups > 1 and len(weights) == groups == geometry.channels
        if groups > 1 and not depthwise:
            raise _unknown(node, layer)
        unit = torch.ones(()) if layer.output_scale is None else layer.output_scale
        residual: dict[str, Any] = {}
        if layer.residual_scale is not None:
            residual = self._residual(node.args[1], layer.residual_scale / unit)
        fields = {**inputs.pixels(), **residual, **self._output(node, layer.output_zero_point)}
        fields["input_offsets"] = window.pixel_offsets(geometry, outputs[1:])
        own = (depthwise_fields if depthwise else convolution_fields)(
            weights, window, geometry, outputs[1:]
        )
        order = own.pop("order")
        for name in [name for name in fields if name.endswith("_offsets")]:
            fields[name] = fields[name][order].contiguous()
        self._emit(
            Kind.DEPTHWISE if depthwise else Kind.CONVOLUTION, channels=outputs[0],
            **fields, **own, **_requantization(layer, weights, unit),
        )  # fmt: skip

    def _max_pool(self, node: fx.Node, layer: q.OnCodes) -> None:
        geometry, outputs = self.layout.value(node.args[0]).geometry, self.layout.spatial(node)
        window = window_of(layer, geometry.sides)
        assert window is not None
        if geometry.zero and any(window.padding):  # the border must lose against every code
            raise _unknown(node, layer.function)
        taps = window.tap_offsets(geometry).flatten()
        fields = self.layout.value(node.args[0]).pixels() | self._output(node, geometry.zero)
        fields["input_offsets"] = window.pixel_offsets(geometry, outputs[1:])
        self._emit(
            Kind.MAXIMUM, channels=outputs[0], run_offsets=taps, runs=len(taps), **fields
        )  # fmt: skip

    def _mean(self, node: fx.Node, layer: q.QuantizedMean) -> None:
        inputs, outputs = self.layout.value(node.args[0]), self.layout.spatial(node)
        geometry = inputs.geometry
        window = mean_window(layer.pool, geometry.sides, outputs[1:])
        if window is None:
            raise _unknown(node, layer.pool)
        fields = inputs.pixels() | self._output(node, layer.output_zero_point)
        fields["input_offsets"] = window.pixel_offsets(geometry, outputs[1:])
        self._emit(
            Kind.MEAN, channels=outputs[0], input_scale=float(layer.input_scale / layer.output_scale),
            run_offsets=window.tap_offsets(geometry)[:, 0].contiguous(), runs=window.size[0],
            groups=window.size[1], width=geometry.channels, **fields,
        )  # fmt: skip

    def _map(self, source: Any, scale: float, output: dict[str, Any], **others: Any) -> None:
        """Emit `source` times `scale`, pixel by pixel, into what `output` says."""
        value = self.layout.value(source)
        fields = {**value.pixels(), **output, **others}
        self._emit(Kind.MAP, channels=value.geometry.channels, input_scale=scale, **fields)

    def _clamp(self, node: fx.Node, layer: q.ClampCodes) -> None:
        output = self._output(node, self.layout.value(node.args[0]).geometry.zero)
        bounds = {"low": unsigned_zero(layer.low), "high": unsigned_zero(layer.high)}
        self._map(node.args[0], 1.0, {**output, "output_zero": 0}, input_zero=0, **bounds)

    def _add(self, node: fx.Node, layer: q.QuantizedJoin) -> None:
        if len(layer.input_scales) != 2:
            raise _unknown(node, layer)
        ratios = layer.input_scales / layer.output_scale
        residual = self._residual(node.args[1], ratios[1])
        output = self._output(node, layer.output_zero_point)
        self._map(node.args[0], float(ratios[0]), output, **residual)

    def _concatenate(self, node: fx.Node, layer: q.QuantizedJoin) -> None:
        if layer.dim not in (1, 1 - len(self.layout.shapes[node])):
            raise _unknown(node, layer)
        output, channel = self._output(node, layer.output_zero_point), 0
        for ratio, part in zip(layer.input_scales / layer.output_scale, node.args, strict=True):
            places = output["output_offsets"] + channel
            self._map(part, float(ratio), {**output, "output_offsets": places})
            channel += self.layout.value(part).geometry.channels


def _unknown(node: fx.Node, layer: nn.Module) -> UnsupportedTypeError:
    return UnsupportedTypeError(
        f"the native executor has no kernel for {node.target} ({type(layer).__name__})"
    )


def _requantization(layer: q.QuantizedLayer, weights: Tensor, unit: Tensor) -> dict[str, Any]:
    """Return the bias, with the products of the input's zero point, and the multipliers."""
    sums = weights.flatten(1).long().sum(1)
    bias = layer.bias.long() - unsigned_zero(layer.input_zero_point) * sums
    if weights[0].numel() * MAX_PRODUCT + int(bias.abs().max()) >= INT32:
        raise UnsupportedTypeError("the native executor's sums of a layer do not fit into int32")
    scale = layer.input_scale.double() * layer.weight_scale.double()
    return {
        "bias": padded(bias.int()),
        "multiplier": padded((scale / unit.double()).float()),
    }
