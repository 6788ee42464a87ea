"""Nodes of the quantized network -> nodes of the ONNX graph, values that are rounded as QDQ."""

from typing import Any

import numpy as np
from torch import Tensor, fx, nn

from compression.affine import INT8_MAX, INT8_MIN
from compression.errors import CompressionError, UnsupportedTypeError
from compression.integer.codes import OFFSET, unsigned
from compression.integer.onnx.graph import Graph
from compression.integer.onnx.operators import alone, is_misread
from compression.integer.onnx.parameters import Codes, bias, is_of_pixels, weight
from compression.integer.onnx.rows import attend, each_image, held, normalize
from compression.integer.onnx.windows import average, convolution, interpolation, maximum
from compression.integer.shapes import Move
from compression.quantization import modules as q
from compression.quantization.ends import returned


class Builder:
    """Writes one node of a lowered network after another into its `graph`."""

    def __init__(
        self,
        network: fx.GraphModule,
        shapes: dict[fx.Node, list[int]],
        moves: dict[fx.Node, Move],
    ) -> None:
        """Write nothing yet; `shapes` and `moves` are those of one image's values."""
        self.network, self.shapes, self.moves = network, shapes, moves
        self.graph = Graph()
        # a value's codes with their scale and zero point, or its real numbers
        self.codes: dict[fx.Node, Codes] = {}
        self.real: dict[fx.Node, str] = {}
        self.results: list[tuple[str, list[int]]] = []
        """The name and the shape of each output."""

    def build(self) -> None:
        """Write all; UnsupportedTypeError names a layer, or a value, that the file cannot say."""
        for node in self.network.graph.nodes:
            if 0 in self.shapes.get(node, ()):
                raise UnsupportedTypeError(
                    f"{node.target}: the export knows no values of the shape {self.shapes[node]}"
                )
            match node.op:
                case "placeholder":
                    self.real[node] = "input"
                case "output":
                    for path, result in returned(self.network.graph):
                        name = self.graph.named(self.real[result], path)
                        self.results.append((name, self.shapes[result]))
                case _ if node in self.moves:
                    self._move(node)
                case "call_module":
                    self._named(node, self.network.get_submodule(str(node.target)))

    def _named(self, node: fx.Node, layer: nn.Module) -> None:
        try:
            self._layer(node, layer)
        except CompressionError as error:
            raise type(error)(f"{node.target}: {error}") from error

    def _layer(self, node: fx.Node, layer: nn.Module) -> None:
        match layer:
            case q.Quantize():
                self._quantize(node, self._read(node.args[0]), layer)
            case q.RepeatedCodes(axis=0):
                images: Any = node.args[0]
                codes = self.graph.constant(unsigned(layer.held))
                codes = each_image(self.graph, codes, layer.held, self.codes[images].names[0])
                self.codes[node] = self._meaning(layer).named(codes)
            case q.Dequantize():
                self.real[node] = self._read(node.args[0])
            case q.QuantizedLayer():
                self._compressible(node, layer)
            case q.QuantizedRest():
                whole = self._join(layer, node.args[1:])
                rest = self.graph.node("Sub", [whole, self._read(node.args[0])])
                self._quantize(node, rest, layer)
            case q.QuantizedJoin():
                self._quantize(node, self._join(layer, node.args), layer)
            case q.QuantizedMean():
                self._quantize(node, self._pool(node, average, layer.pool), layer)
            case q.QuantizedInterpolation():
                self._quantize(node, self._interpolate(node, layer), layer)
            case q.RealInterpolation():
                self.real[node] = self._interpolate(node, layer)
            case q.RealSum():
                self.real[node] = self._sum([self._read(a) for a in node.args])
            case q.QuantizedAffine():
                scaled = self._with("Mul", self._read(node.args[0]), layer.factor)
                self._quantize(node, self._with("Add", scaled, layer.offset), layer)
            case q.QuantizedProduct():
                factors = self._operands(layer, node.args)
                self._quantize(node, self.graph.node("Mul", factors), layer)
            case q.QuantizedLayerNorm():
                rows = self._sum([self._read(a) for a in node.args])
                self._quantize(node, normalize(self.graph, layer, rows), layer)
            case q.QuantizedAttention():
                shapes = [self.shapes[a] for a in node.args]  # type: ignore[index]
                reals = [self._read(a) for a in node.args]
                self._quantize(node, attend(self.graph, layer, reals, shapes), layer)
            case q.InFloat():
                self._quantize(node, self._in_float(node, layer), layer)
            case q.QuantizedFunction():
                # A table: exact, where an engine's own function is another's.
                codes = self._look_up(node.args[0], unsigned(layer.table))
                self.codes[node] = self._meaning(layer).named(codes)
            case q.OnCodes():
                self._same_codes(node, self._pool(node, maximum, layer.function), node.args[0])
            case q.ClampCodes():
                self._same_codes(node, self._clamp(node, layer), node.args[0])
            case _:
                raise UnsupportedTypeError(f"ONNX's QDQ form has no {type(layer).__name__}")

    def _read(self, source: Any) -> str:
        """Return the real numbers of a value: a DequantizeLinear of its own for each reader."""
        if source in self.codes:
            return self.graph.node("DequantizeLinear", list(self.codes[source].names))
        return self.real[source]

    def _quantize(self, node: fx.Node, real: str, layer: q.Codes | q.QuantizedLayer) -> None:
        meaning = self._meaning(layer)
        codes = self.graph.node("QuantizeLinear", [real, *meaning.names[1:]])
        self.codes[node] = meaning.named(codes)

    def _meaning(self, layer: q.Codes | q.QuantizedLayer) -> Codes:
        """Write the scale and zero point of a layer's codes, which have no name yet."""
        assert layer.output_scale is not None
        assert layer.output_zero_point is not None
        zero_point = int(layer.output_zero_point) + OFFSET
        names = self.graph.constant(layer.output_scale), self.graph.constant(np.uint8(zero_point))
        return Codes(("", *names), float(layer.output_scale), zero_point)

    def _same_codes(self, node: fx.Node, real: str, before: Any) -> None:
        source = self.codes[before]
        codes = self.graph.node("QuantizeLinear", [real, *source.names[1:]])
        self.codes[node] = source.named(codes)

    def _look_up(self, source: Any, table: Any) -> str:
        """Write what a table of 256 says of each code."""
        from onnx import TensorProto

        places = self.graph.node("Cast", [self.codes[source].names[0]], to=TensorProto.INT32)
        return self.graph.node("Gather", [self.graph.constant(table), places])

    def _in_float(self, node: fx.Node, layer: q.InFloat) -> str:
        sources: Any = node.args
        piece = alone(layer.operator, [self.shapes[a] for a in sources])
        apart = is_misread(piece)  # no engine takes a table into the operator after it
        reals = [
            self._look_up(a, self.codes[a].table()) if apart else self._read(a) for a in sources
        ]
        return self.graph.insert(piece, reals)

    def _with(self, kind: str, real: str, number: float) -> str:
        return self.graph.node(kind, [real, self.graph.constant(np.float32(number))])

    def _compressible(self, node: fx.Node, layer: q.QuantizedLayer) -> None:
        shape = self.shapes[node.args[0]]  # type: ignore[index]
        real, filters, added = (
            self._read(node.args[0]),
            weight(self.graph, layer, shape),
            bias(self.graph, layer),
        )
        if is_of_pixels(layer, shape):
            real = self.graph.node("Conv", [self.graph.reshape(real, [*shape, 1]), filters, added])
            real = self.graph.reshape(real, self.shapes[node])
        elif layer.linear and len(shape) == 2:
            real = self.graph.node("Gemm", [real, filters, added], transB=1)
        elif layer.linear:
            product = self.graph.node("MatMul", [real, filters])
            real = self.graph.node("Add", [product, added])
        elif len(shape) == layer.codes.ndim - 1:  # rows of channels, as images of one pixel
            real = self.graph.reshape(real, [*shape, *[1] * (layer.codes.ndim - 2)])
            real = convolution(self.graph, layer, [real, filters, added])
            real = self.graph.reshape(real, self.shapes[node])
        else:
            real = convolution(self.graph, layer, [real, filters, added])
        if len(node.args) > 1:
            real = self.graph.node("Add", [real, self._read(node.args[1])])
        if layer.output_scale is None:
            self.real[node] = real
        else:
            self._quantize(node, real, layer)

    def _operands(
        self, layer: q.QuantizedJoin | q.QuantizedProduct, sources: tuple[Any, ...]
    ) -> list[str]:
        """Return the real numbers of what a layer reads, and of what it holds."""
        reals = [self._read(a) for a in sources]

        def constant(codes: Tensor) -> str:
            real = held(self.graph, layer, codes)
            joined = isinstance(layer, q.QuantizedJoin) and layer.dim is not None
            return each_image(self.graph, real, codes, reals[0]) if joined else real

        return layer.whole(reals, constant)

    def _join(self, layer: q.QuantizedJoin, sources: tuple[Any, ...]) -> str:
        operands = self._operands(layer, sources)
        if layer.dim is not None:
            return self.graph.node("Concat", operands, axis=layer.dim)
        return self._sum(operands)

    def _sum(self, reals: list[str]) -> str:
        total, *others = reals
        for other in others:
            total = self.graph.node("Add", [total, other])
        return total

    def _pool(self, node: fx.Node, write: Any, pool: nn.Module) -> str:
        source: Any = node.args[0]
        shapes = self.shapes[source], self.shapes[node]
        name: str = write(self.graph, pool, self.codes[source].names, *shapes)
        return name

    def _interpolate(
        self, node: fx.Node, layer: q.QuantizedInterpolation | q.RealInterpolation
    ) -> str:
        before, after = self.shapes[node.args[0]], self.shapes[node]  # type: ignore[index]
        matrices = layer.matrices(before[2:], after[2:] if len(node.args) > 1 else None)
        return interpolation(self.graph, self._read(node.args[0]), matrices, before)

    def _clamp(self, node: fx.Node, layer: q.ClampCodes) -> str:
        codes = self.codes[node.args[0]]  # type: ignore[index]
        real, low, high = self._read(node.args[0]), int(layer.low), int(layer.high)
        if codes.real(low) == 0 and high == INT8_MAX:
            return self.graph.node("Relu", [real])
        bounds = [
            self.graph.constant(np.float32(codes.real(code))) if inside else ""
            for code, inside in ((low, low > INT8_MIN), (high, high < INT8_MAX))
        ]
        return self.graph.node("Clip", [real, *bounds])

    def _move(self, node: fx.Node) -> None:
        source, places = self.moves[node]
        before, after = self.shapes[source], self.shapes[node]
        if before == after and self.moves[node].is_view:
            # No node for what moves nothing: OpenVINO 2026.4 crashes on one after a concatenation.
            if source in self.codes:
                self.codes[node] = self.codes[source]
            else:
                self.real[node] = self.real[source]
            return
        real = self.graph.move(self._read(source), places, before, after)
        if source in self.codes:
            self._same_codes(node, real, source)
        else:
            self.real[node] = real
