"""A statically quantized network, node by node, as steps over its values."""

from dataclasses import replace
from typing import Any

from torch import Tensor, fx, nn

from compression.errors import UnsupportedTypeError
from compression.integer.steps.elementwise import gather, interpolate, look_up, multiply
from compression.integer.steps.groups import parts, with_weights
from compression.integer.steps.layout import Layout, Value
from compression.integer.steps.operands import misplaced_operand
from compression.integer.steps.outputs import Outputs
from compression.integer.steps.requantization import requantization, unit_of
from compression.integer.steps.step import (
    Map,
    Maximum,
    Mean,
    Place,
    Product,
    Quantize,
    RealPlace,
    Residual,
    Step,
    Weights,
)
from compression.integer.steps.target import Target
from compression.integer.steps.transposed import transposed
from compression.integer.steps.windows import (
    Window,
    mean_window,
    window_of,
)
from compression.integer.windows import POOL_DIMS
from compression.quantization import modules as q


class Lowering:
    """Writes the steps of a network, in its order, for one executor."""

    def __init__(self, layout: Layout, target: Target) -> None:
        """Write nothing yet."""
        self.layout, self.target = layout, target
        self.steps: list[Step] = []
        self.outputs = Outputs(layout.network.graph, layout.shapes)

    def lower(self) -> None:
        """Write every step; UnsupportedTypeError names a layer that has no kernel."""
        for node in self.layout.network.graph.nodes:
            layer = self.layout.module(node)
            if node in self.layout.moved:
                self.steps.append(gather(self.layout, node, self.target))
            elif layer is not None and self.layout.computes(node):
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
                self._product(node, layer)
            case q.QuantizedLayer() if layer.codes.ndim in (3, 4) and layer.options["groups"] == 1:
                places = self._product_output(node, layer), self._added(node, layer)
                self.steps.extend(transposed(self.layout, node, layer, self.target, *places))
            case q.OnCodes(function=nn.MaxPool1d() | nn.MaxPool2d()):
                self._max_pool(node, layer)
            case q.QuantizedMean():
                self._mean(node, layer)
            case q.QuantizedJoin(dim=None):
                self._add(node, layer)
            case q.QuantizedJoin():
                self._concatenate(node, layer)
            case q.ClampCodes():
                self._clamp(node, layer)
            case q.QuantizedFunction():
                zero = self.target.zero(layer.output_zero_point)
                self.steps.append(look_up(self.layout, node, layer.table, self.target, zero))
            case q.QuantizedProduct():
                zero = self.target.zero(layer.output_zero_point)
                self.steps.append(multiply(self.layout, node, layer, self.target, zero))
            case q.QuantizedInterpolation() if len(self.layout.shapes[node]) < 5:
                zero = self.target.zero(layer.output_zero_point)
                self.steps.append(interpolate(self.layout, node, layer, self.target, zero))
            case q.Dequantize():
                sides = self.layout.sides(node.args[0])
                self._map(node, node.args[0], float(layer.scale), self.outputs.place(node, sides))
            case _:
                raise self._unknown(node, layer)

    def _unknown(self, node: fx.Node, layer: nn.Module, how: str = "") -> UnsupportedTypeError:
        return UnsupportedTypeError(
            f"the {self.target.name} executor has no kernel for {node.target} "
            f"({type(layer).__name__}){how}"
        )

    def _output(self, node: fx.Node, zero: int) -> Place:
        """Give memory to the codes of `node`, whose code of the real number 0 is `zero`."""
        return self.layout.take(node, zero).place()

    def _residual(self, node: Any, ratio: Tensor) -> Residual:
        place = self.layout.value(node).place()
        return Residual(place.memory, place.offsets, place.stride, place.zero, float(ratio))

    def _quantize(self, node: fx.Node, layer: q.Quantize) -> None:
        channels, height, width = self.layout.spatial(node)
        self.steps.append(
            Quantize(
                name=str(node.target), channels=channels, bounds=self.target.bounds,
                output=self._output(node, self.target.zero(layer.output_zero_point)),
                width=width, plane=height * width, scale=float(layer.output_scale),
            )
        )  # fmt: skip

    def _product(self, node: fx.Node, layer: q.QuantizedLayer) -> None:
        geometry, outputs = self.layout.value(node.args[0]).geometry, self.layout.spatial(node)
        window = window_of(layer, geometry.sides)
        if window is None:
            raise self._unknown(node, layer)
        weights, groups = self._filters(node, layer)
        bias, multiplier = requantization(layer, weights, self.target)
        residual, output = self._added(node, layer), self._product_output(node, layer)
        whole = Product(
            name=str(node.target), channels=outputs[0], bounds=self.target.bounds,
            input=self._windows(node, window), output=output, residual=residual, bias=bias,
            multiplier=multiplier, weights=Weights(),
        )  # fmt: skip
        packed = self.target.pack(weights, groups, window, geometry, outputs[1:])
        if packed is not None:
            self.steps.append(with_weights(whole, *packed))
            return
        if not self.target.slices:
            raise self._unknown(node, layer)
        for part, filters in parts(whole, weights, groups):
            packed = self.target.pack(filters, 1, window, geometry, outputs[1:])
            assert packed is not None
            self.steps.append(with_weights(part, *packed))

    def _filters(self, node: fx.Node, layer: q.QuantizedLayer) -> tuple[Tensor, int]:
        """Return a layer's weights (O, I, H, W), I of one group, and its groups."""
        geometry, weights = self.layout.value(node.args[0]).geometry, layer.codes
        groups = layer.options.get("groups", 1)
        if weights.ndim < 4:  # a linear layer's window is as large as the image
            window = window_of(layer, geometry.sides)
            assert window is not None
            weights = weights.view(len(weights), -1, *window.size)
        if weights.shape[1] * groups != geometry.channels:
            raise self._unknown(node, layer)
        return weights, groups

    def _windows(self, node: fx.Node, window: Window) -> Place:
        """Return what `node` reads: the offsets are those at which each output's window begins."""
        value = self.layout.value(node.args[0])
        outputs = self.layout.spatial(node)[1:]
        return replace(value.place(), offsets=window.pixel_offsets(value.geometry, outputs))

    def _added(self, node: fx.Node, layer: q.QuantizedLayer) -> Residual | None:
        if layer.residual_scale is None:
            return None
        return self._residual(node.args[1], layer.residual_scale / unit_of(layer))

    def _product_output(self, node: fx.Node, layer: q.QuantizedLayer) -> Place | RealPlace:
        if layer.output_zero_point is None:
            return self.outputs.place(node, self.layout.spatial(node))
        return self._output(node, self.target.zero(layer.output_zero_point))

    def _max_pool(self, node: fx.Node, layer: q.OnCodes) -> None:
        value, outputs = self.layout.value(node.args[0]), self.layout.spatial(node)
        geometry, (lowest, _) = value.geometry, self.target.bounds
        window = window_of(layer, geometry.sides)
        rank = len(self.layout.shapes[node.args[0]])  # type: ignore[index]
        if window is None or rank != POOL_DIMS[type(layer.function)] + 2:
            raise self._unknown(node, layer.function)
        beyond = window.border(geometry.height, geometry.width, outputs[1:])
        output = self._output(node, geometry.zero)
        if geometry.zero <= lowest or not any(beyond):
            self._maximum(node, value, window, outputs, output)
            return
        # The border must lose to every code: the pool reads a copy within another.
        around = replace(geometry, border=beyond, zero=lowest)
        copy = Value(around, self.layout.buffers.take(around))
        alone = Window([1, 1], [1, 1], [0, 0], [1, 1])
        self._maximum(node, value, alone, around.sides, copy.place())
        self._maximum(node, copy, window, outputs, output)
        self.layout.buffers.give_back(around, copy.memory)

    def _maximum(
        self, node: fx.Node, value: Value, window: Window, sides: list[int], output: Place
    ) -> None:
        """Write the largest codes of windows over `value`; `sides` are those of the output."""
        geometry = value.geometry
        offsets = window.pixel_offsets(geometry, sides[1:])
        self.steps.append(
            Maximum(
                name=str(node.target), channels=geometry.channels, bounds=self.target.bounds,
                input=replace(value.place(), offsets=offsets), output=output,
                taps=window.tap_offsets(geometry).flatten(),
            )
        )  # fmt: skip

    def _mean(self, node: fx.Node, layer: q.QuantizedMean) -> None:
        geometry, outputs = self.layout.value(node.args[0]).geometry, self.layout.spatial(node)
        rank = len(self.layout.shapes[node.args[0]])  # type: ignore[index]
        window = mean_window(layer.pool, geometry.sides, outputs[1:], rank)
        if window is None:
            raise self._unknown(node, layer.pool)
        self.steps.append(
            Mean(
                name=str(node.target), channels=outputs[0], bounds=self.target.bounds,
                input=self._windows(node, window),
                output=self._output(node, self.target.zero(layer.output_zero_point)),
                rows=window.tap_offsets(geometry)[:, 0].contiguous(), across=window.size[1],
                pixel=geometry.pixel, scale=float(layer.input_scale / layer.output_scale),
            )
        )  # fmt: skip

    def _map(
        self,
        node: fx.Node,
        source: Any,
        scale: float,
        output: Place | RealPlace,
        residual: Residual | None = None,
    ) -> None:
        """Write `source` times `scale`, pixel by pixel, to `output`."""
        value = self.layout.value(source)
        self.steps.append(
            Map(
                name=str(node.target), channels=value.geometry.channels, bounds=self.target.bounds,
                input=value.place(), output=output, residual=residual, scale=scale,
            )
        )  # fmt: skip

    def _clamp(self, node: fx.Node, layer: q.ClampCodes) -> None:
        """Write the codes themselves, as those of a zero point of 0, within other bounds."""
        value = self.layout.value(node.args[0])
        output = self._output(node, value.geometry.zero)
        self.steps.append(
            Map(
                name=str(node.target), channels=value.geometry.channels,
                bounds=(self.target.zero(layer.low), self.target.zero(layer.high)),
                input=replace(value.place(), zero=0), output=replace(output, zero=0), scale=1.0,
            )
        )  # fmt: skip

    def _add(self, node: fx.Node, layer: q.QuantizedJoin) -> None:
        if len(layer.input_scales) != 2:
            raise self._unknown(node, layer)
        ratios = layer.input_scales / layer.output_scale
        residual = self._residual(node.args[1], ratios[1])
        output = self._output(node, self.target.zero(layer.output_zero_point))
        self._map(node, node.args[0], float(ratios[0]), output, residual)

    def _concatenate(self, node: fx.Node, layer: q.QuantizedJoin) -> None:
        if layer.dim not in (1, 1 - len(self.layout.shapes[node])):
            raise self._unknown(node, layer)
        output, channel = self._output(node, self.target.zero(layer.output_zero_point)), 0
        for ratio, part in zip(layer.input_scales / layer.output_scale, node.args, strict=True):
            self._map(node, part, float(ratio), replace(output, offsets=output.offsets + channel))
            channel += self.layout.value(part).geometry.channels
