"""A statically quantized network, node by node, as steps over its values."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import torch
from torch import Tensor, fx, nn

from compression.errors import UnsupportedTypeError
from compression.integer.steps.geometry import Geometry
from compression.integer.steps.layout import Layout
from compression.integer.steps.operands import misplaced_operand
from compression.integer.steps.windows import Window, depthwise_fields, mean_window, window_of
from compression.quantization import modules as q

LOWEST, HIGHEST = -128, 127
"""The codes of a quantized network."""
MAX_WEIGHT = 127
INT32 = 2**31

Pack = Callable[[Tensor, Window, Geometry, list[int]], dict[str, Any]]
"""Weights (O, I, H, W), how their window slides, over what, and the output's rows and columns -> the
fields of the step that are the executor's own; "order" among them is that of the output pixels."""


class Kind(IntEnum):
    """What a step does; the numbers are those of `enum kind` of the native executor."""

    QUANTIZE = 0
    CONVOLUTION = 1
    DEPTHWISE = 2
    MAXIMUM = 3
    MEAN = 4
    MAP = 5


@dataclass(frozen=True, slots=True)
class Step:
    """What computes one value; `fields` are those of `struct step` of the native executor."""

    kind: Kind
    name: str
    fields: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Target:
    """What an executor wants: its codes are the network's plus `offset`, its weights packed."""

    name: str
    offset: int
    pack: Pack

    def zero(self, zero_point: Tensor | None) -> int:
        """Return the executor's zero point of the network's; 0 for none."""
        return 0 if zero_point is None else int(zero_point) + self.offset

    @property
    def largest(self) -> int:
        """Return the largest magnitude of a code."""
        return max(HIGHEST + self.offset, -LOWEST - self.offset)


class Lowering:
    """Writes steps in the network's order."""

    def __init__(self, layout: Layout, target: Target) -> None:
        """Write nothing yet."""
        self.layout, self.target = layout, target
        self.steps: list[Step] = []
        self.real: list[int] = []
        """Channels, rows and columns of the real output, which is written channels last."""

    def lower(self) -> None:
        """Write every step; UnsupportedTypeError names a layer that has no kernel."""
        for node in self.layout.network.graph.nodes:
            layer = self.layout.module(node)
            if layer is not None and self.layout.root(node) is node:
                reason = misplaced_operand(self.layout, node, layer)
                if reason:
                    raise self._unknown(node, layer, reason)
                self._layer(node, layer)
            self.layout.release(node)

    def _layer(self, node: fx.Node, layer: nn.Module) -> None:
        match layer:
            case q.Quantize():
                self._quantize(node, layer)
            case q.QuantizedLayer() if not layer.transposed and layer.codes.ndim in (2, 3, 4):
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
                sides = self.layout.sides(node.args[0])
                self._map(node, node.args[0], float(layer.scale), self._real_output(sides))
            case _:
                raise self._unknown(node, layer)

    def _emit(self, kind: Kind, node: fx.Node, **fields: Any) -> None:
        offset = self.target.offset
        bounds = {"low": LOWEST + offset, "high": HIGHEST + offset}
        self.steps.append(Step(kind, str(node.target), {**bounds, **fields}))

    def _unknown(self, node: fx.Node, layer: nn.Module, how: str = "") -> UnsupportedTypeError:
        return UnsupportedTypeError(
            f"the {self.target.name} executor has no kernel for {node.target} "
            f"({type(layer).__name__}){how}"
        )

    def _real_output(self, sides: list[int]) -> dict[str, Any]:
        """Return the fields that say where a step writes the network's real output."""
        channels, height, width = self.real = sides
        places = torch.arange(height * width, dtype=torch.int32) * channels
        stride = channels * height * width
        return {
            "output_offsets": places, "output_stride": stride, "pixels": height * width, "real": 1,
        }  # fmt: skip

    def _output(self, node: fx.Node, zero: Tensor | int | None) -> dict[str, Any]:
        """Return the fields that say where a step writes `node`; without zero point, real numbers."""
        _, height, width = self.layout.spatial(node)
        if zero is None:
            return self._real_output(self.layout.spatial(node))
        zero = zero if isinstance(zero, int) else self.target.zero(zero)
        value = self.layout.take(node, zero)
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
            Kind.QUANTIZE, node, channels=channels, width=width, plane=height * width,
            input_scale=float(layer.output_scale), **self._output(node, layer.output_zero_point),
        )  # fmt: skip

    def _compressible(self, node: fx.Node, layer: q.QuantizedLayer) -> None:
        inputs = self.layout.value(node.args[0])
        geometry, outputs = inputs.geometry, self.layout.spatial(node)
        window, weights = window_of(layer, geometry.sides), layer.codes
        if window is None:
            raise self._unknown(node, layer)
        if weights.ndim < 4:
            weights = weights.view(len(weights), -1, *window.size)
        groups = layer.options.get("groups", 1)
        depthwise = groups > 1 and len(weights) == groups == geometry.channels
        if (groups > 1 and not depthwise) or weights.shape[1] * groups != geometry.channels:
            raise self._unknown(node, layer)
        unit = torch.ones(()) if layer.output_scale is None else layer.output_scale
        residual: dict[str, Any] = {}
        if layer.residual_scale is not None:
            residual = self._residual(node.args[1], layer.residual_scale / unit)
        fields = {**inputs.pixels(), **residual, **self._output(node, layer.output_zero_point)}
        fields["input_offsets"] = window.pixel_offsets(geometry, outputs[1:])
        if depthwise:
            own = depthwise_fields(weights, window, geometry)
        else:
            own = self.target.pack(weights, window, geometry, outputs[1:])
        order = own.pop("order", None)
        for name in [name for name in fields if name.endswith("_offsets") and order is not None]:
            fields[name] = fields[name][order].contiguous()
        self._emit(
            Kind.DEPTHWISE if depthwise else Kind.CONVOLUTION, node, channels=outputs[0],
            **fields, **own, **self._requantization(layer, weights, unit),
        )  # fmt: skip

    def _requantization(
        self, layer: q.QuantizedLayer, weights: Tensor, unit: Tensor
    ) -> dict[str, Any]:
        """Return the bias, with the products of the input's zero point, and the multipliers."""
        sums = weights.flatten(1).long().sum(1)
        bias = layer.bias.long() - self.target.zero(layer.input_zero_point) * sums
        most = weights[0].numel() * self.target.largest * MAX_WEIGHT
        if most + int(bias.abs().max()) >= INT32:
            raise UnsupportedTypeError(
                f"the {self.target.name} executor's sums of a layer do not fit into int32"
            )
        scale = layer.input_scale.double() * layer.weight_scale.double()
        return {"bias": bias.int(), "multiplier": (scale / unit.double()).float()}

    def _max_pool(self, node: fx.Node, layer: q.OnCodes) -> None:
        geometry, outputs = self.layout.value(node.args[0]).geometry, self.layout.spatial(node)
        window = window_of(layer, geometry.sides)
        assert window is not None
        lowest = LOWEST + self.target.offset
        if geometry.zero > lowest and any(window.padding):  # the border must lose to every code
            raise self._unknown(node, layer.function)
        taps = window.tap_offsets(geometry).flatten()
        fields = self.layout.value(node.args[0]).pixels() | self._output(node, geometry.zero)
        fields["input_offsets"] = window.pixel_offsets(geometry, outputs[1:])
        self._emit(
            Kind.MAXIMUM, node, channels=outputs[0], run_offsets=taps, runs=len(taps), **fields
        )  # fmt: skip

    def _mean(self, node: fx.Node, layer: q.QuantizedMean) -> None:
        inputs, outputs = self.layout.value(node.args[0]), self.layout.spatial(node)
        geometry = inputs.geometry
        rank = len(self.layout.shapes[node.args[0]])  # type: ignore[index]
        window = mean_window(layer.pool, geometry.sides, outputs[1:], rank)
        if window is None:
            raise self._unknown(node, layer.pool)
        fields = inputs.pixels() | self._output(node, layer.output_zero_point)
        fields["input_offsets"] = window.pixel_offsets(geometry, outputs[1:])
        self._emit(
            Kind.MEAN, node, channels=outputs[0],
            input_scale=float(layer.input_scale / layer.output_scale),
            run_offsets=window.tap_offsets(geometry)[:, 0].contiguous(), runs=window.size[0],
            groups=window.size[1], width=geometry.pixel, **fields,
        )  # fmt: skip

    def _map(
        self, node: fx.Node, source: Any, scale: float, output: dict[str, Any], **others: Any
    ) -> None:
        """Emit `source` times `scale`, pixel by pixel, into what `output` says."""
        value = self.layout.value(source)
        fields = {**value.pixels(), **output, **others}
        self._emit(Kind.MAP, node, channels=value.geometry.channels, input_scale=scale, **fields)

    def _clamp(self, node: fx.Node, layer: q.ClampCodes) -> None:
        output = self._output(node, self.layout.value(node.args[0]).geometry.zero)
        bounds = {"low": self.target.zero(layer.low), "high": self.target.zero(layer.high)}
        self._map(node, node.args[0], 1.0, {**output, "output_zero": 0}, input_zero=0, **bounds)

    def _add(self, node: fx.Node, layer: q.QuantizedJoin) -> None:
        if len(layer.input_scales) != 2:
            raise self._unknown(node, layer)
        ratios = layer.input_scales / layer.output_scale
        residual = self._residual(node.args[1], ratios[1])
        output = self._output(node, layer.output_zero_point)
        self._map(node, node.args[0], float(ratios[0]), output, **residual)

    def _concatenate(self, node: fx.Node, layer: q.QuantizedJoin) -> None:
        if layer.dim not in (1, 1 - len(self.layout.shapes[node])):
            raise self._unknown(node, layer)
        output, channel = self._output(node, layer.output_zero_point), 0
        for ratio, part in zip(layer.input_scales / layer.output_scale, node.args, strict=True):
            places = output["output_offsets"] + channel
            self._map(node, part, float(ratio), {**output, "output_offsets": places})
            channel += self.layout.value(part).geometry.channels
