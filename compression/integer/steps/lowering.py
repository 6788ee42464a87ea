"""A statically quantized network, node by node, as steps over its values."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor, fx, nn

from compression.errors import UnsupportedTypeError
from compression.integer.steps.axes import is_by_channel
from compression.integer.steps.elementwise import (
    clamp,
    gather,
    interpolate,
    look_up,
    multiply,
    table_of,
)
from compression.integer.steps.groups import parts, with_weights
from compression.integer.steps.joins import add, added, concatenate, scaled, unread, with_rests
from compression.integer.steps.layout import Layout, Value
from compression.integer.steps.operands import constant, misplaced_operand, values_read
from compression.integer.steps.outputs import Outputs
from compression.integer.steps.pools import average, largest, max_window
from compression.integer.steps.requantization import requantization, unit_of
from compression.integer.steps.rows import attend, normalize, unfit
from compression.integer.steps.step import (
    Map,
    Place,
    Product,
    Quantize,
    RealPlace,
    Residual,
    Step,
    Sum,
    Weights,
)
from compression.integer.steps.target import Target
from compression.integer.steps.transposed import transposed
from compression.integer.steps.windows import PIXEL, Window, window_of
from compression.quantization import modules as q


class Lowering:
    """Writes the steps of a network, in its order, for one executor."""

    def __init__(self, layout: Layout, target: Target) -> None:
        """Write nothing yet."""
        self.layout, self.target = layout, target
        self.steps: list[Step] = []
        self.outputs = Outputs(layout.network, layout.shapes)

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
            case q.RepeatedCodes():
                zero, axis = self.target.zero(layer.output_zero_point), self.layout.axis(node)
                held = constant(self.layout, layer.held, axis, self.target, zero)
                self.layout.values[node] = held
            case q.QuantizedLayer() if not layer.transposed and layer.codes.ndim in (2, 3, 4, 5):
                self._product(node, layer)
            case q.QuantizedLayer() if (
                layer.codes.ndim in (3, 4, 5) and layer.options["groups"] == 1
            ):
                self._transposed(node, layer)
            case q.OnCodes(function=nn.MaxPool1d() | nn.MaxPool2d() | nn.MaxPool3d()):
                self._max_pool(node, layer)
            case q.QuantizedMean():
                self._mean(node, layer)
            case q.QuantizedJoin():
                self._join(node, layer)
            case q.ClampCodes():
                self.steps.append(clamp(self.layout, node, layer, self.target))
            case q.QuantizedFunction():
                zero = self.target.zero(layer.output_zero_point)
                self.steps.append(look_up(self.layout, node, layer.table, self.target, zero))
            case q.QuantizedAffine():  # of 256 codes, as the reference computes it
                table = table_of(layer)
                zero = self.target.zero(layer.output_zero_point)
                self.steps.append(look_up(self.layout, node, table, self.target, zero))
            case q.QuantizedLayerNorm() | q.QuantizedAttention():
                self._rows(node, layer)
            case q.QuantizedProduct():
                zero = self.target.zero(layer.output_zero_point)
                self.steps.append(multiply(self.layout, node, layer, self.target, zero))
            case q.QuantizedInterpolation() if len(self.layout.shapes[node]) < 5:
                zero = self.target.zero(layer.output_zero_point)
                self.steps.append(interpolate(self.layout, node, layer, self.target, zero))
            case q.Dequantize():
                value = self.layout.read(node, node.args[0])
                by_channel = self.layout.reads_by_channel(node)
                output = self.outputs.place(node, value.geometry.sides, by_channel=by_channel)
                self._map(node, value, float(layer.scale), output)
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

    def _quantize(self, node: fx.Node, layer: q.Quantize) -> None:
        channels, *_, width = self.layout.spatial(node)
        self.steps.append(
            Quantize(
                name=str(node.target), channels=channels, bounds=self.target.bounds,
                output=self._output(node, self.target.zero(layer.output_zero_point)), width=width,
                scale=float(layer.output_scale),
                by_channel=is_by_channel(self.layout.shapes[node], self.layout.axis(node)),
            )
        )  # fmt: skip

    def _rows(self, node: fx.Node, layer: q.QuantizedLayerNorm | q.QuantizedAttention) -> None:
        reason = unfit(self.layout, node, layer)
        if reason:
            raise self._unknown(node, layer, reason)
        output = self._output(node, self.target.zero(layer.output_zero_point))
        write: Any = normalize if isinstance(layer, q.QuantizedLayerNorm) else attend
        self.steps.append(write(self.layout, node, layer, self.target, output))

    def _product(self, node: fx.Node, layer: q.QuantizedLayer) -> None:
        value, outputs = self.layout.read(node, node.args[0]), self.layout.spatial(node)
        geometry, window = value.geometry, self._window(node, layer)
        if window is None or not self._is_slid_over(node, layer):
            raise self._unknown(node, layer)
        weights, groups = self._filters(node, layer)
        bias, multiplier = requantization(layer, weights, self.target)
        residual, output = self._added(node, layer), self._product_output(node, layer)
        whole = Product(
            name=str(node.target), channels=outputs[0], bounds=self.target.bounds,
            input=value.place() if self._is_pixel(node, layer) else self._windows(node, window),
            output=output, residual=residual, bias=bias,
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

    def _transposed(self, node: fx.Node, layer: q.QuantizedLayer) -> None:
        if not self._is_slid_over(node, layer):
            raise self._unknown(node, layer)
        places = self._product_output(node, layer), self._added(node, layer)
        self.steps.extend(transposed(self.layout, node, layer, self.target, *places))

    def _is_slid_over(self, node: fx.Node, layer: q.QuantizedLayer) -> bool:
        """Tell whether a layer reads what its weights are for; filters of signals take rows as well."""
        rank = len(self.layout.shapes[node.args[0]])  # type: ignore[index]
        return layer.linear or rank in {3: (2, 3), 4: (4,), 5: (5,)}[layer.codes.ndim]

    def _filters(self, node: fx.Node, layer: q.QuantizedLayer) -> tuple[Tensor, int]:
        """Return a layer's weights (O, I, D, H, W), I of one group, and its groups."""
        geometry, weights = self.layout.read(node, node.args[0]).geometry, layer.codes
        groups = layer.options.get("groups", 1)
        window = self._window(node, layer)  # a linear layer's may be as large as the image
        assert window is not None
        weights = weights.reshape(len(weights), -1, *window.size)
        if weights.shape[1] * groups != geometry.channels:
            raise self._unknown(node, layer)
        return weights, groups

    def _window(self, node: fx.Node, layer: q.QuantizedLayer) -> Window | None:
        """Return how a layer slides over what it reads."""
        sides = self.layout.read(node, node.args[0]).geometry.sides
        if self._is_pixel(node, layer):
            return PIXEL
        return window_of(layer, sides)

    def _is_pixel(self, node: fx.Node, layer: q.QuantizedLayer) -> bool:
        """Tell whether a linear layer reads each pixel alone."""
        return layer.linear and not self.layout.is_flat(node.args[0])

    def _windows(self, node: fx.Node, window: Window) -> Place:
        """Return what `node` reads: the offsets are those at which each output's window begins."""
        value = self.layout.read(node, node.args[0])
        outputs = self.layout.spatial(node)[1:]
        return replace(value.place(), offsets=window.pixel_offsets(value.geometry, outputs))

    def _added(self, node: fx.Node, layer: q.QuantizedLayer) -> Residual | None:
        if layer.residual_scale is None:
            return None
        value = self.layout.read(node, node.args[1])
        return added(value, layer.residual_scale / unit_of(layer))

    def _product_output(self, node: fx.Node, layer: q.QuantizedLayer) -> Place | RealPlace:
        if layer.output_zero_point is None:
            by_channel = is_by_channel(self.layout.shapes[node], self.layout.axis(node))
            return self.outputs.place(node, self.layout.spatial(node), by_channel=by_channel)
        return self._output(node, self.target.zero(layer.output_zero_point))

    def _max_pool(self, node: fx.Node, layer: q.OnCodes) -> None:
        window = max_window(self.layout, node, layer)
        if window is None:
            raise self._unknown(node, layer.function)
        self.steps.extend(largest(self.layout, node, window, self.target))

    def _mean(self, node: fx.Node, layer: q.QuantizedMean) -> None:
        steps = average(self.layout, node, layer, self.target)
        if not steps:
            raise self._unknown(node, layer.pool)
        self.steps += steps

    def _map(self, node: fx.Node, value: Value, scale: float, output: Place | RealPlace) -> None:
        self.steps.append(scaled(str(node.target), value, scale, output, self.target))

    def _join(self, node: fx.Node, layer: q.QuantizedJoin) -> None:
        steps = self._join_steps(node, layer)
        if not isinstance(layer, q.QuantizedRest):
            self.steps += steps
            return
        own: Sequence[Any] = self.steps[-len(steps) :]
        if all(f"{step.name}_rest" == node.target for step in own):
            del self.steps[-len(steps) :]
        else:  # moves came between
            zero = self.target.zero(layer.rounded_zero_point)
            own = unread(self.layout, self.layout.values[node].geometry, steps, zero)
        self.steps += with_rests(own, steps)

    def _join_steps(self, node: fx.Node, layer: q.QuantizedJoin) -> Sequence[Map | Sum]:
        dim = None if layer.dim is None else layer.dim % len(self.layout.shapes[node])
        if dim == 0 or (dim is None and len(layer.input_scales) > 3):
            raise self._unknown(node, layer)
        output = self._output(node, self.target.zero(layer.output_zero_point))
        if node in self.layout.beside:  # its parts have been written there
            return ()
        values = values_read(self.layout, node, layer, self.target, broadcast=dim is None)
        if dim is None:
            return [add(node, layer, values, output, self.target)]
        return concatenate(self.layout, node, layer, values, output, self.target)
