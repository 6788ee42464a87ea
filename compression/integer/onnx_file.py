"""The quantized network as an ONNX file in QDQ form, with our scales and codes (opset 13 and later).

Every value that the integer network rounds stands between QuantizeLinear and DequantizeLinear, which
ONNX Runtime, OpenVINO and TensorRT fuse into their integer kernels. Activations are uint8 (our int8
codes plus 128), weights int8 per output channel, biases int32.
"""

from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, fx, nn

from compression.atomic import write_atomically
from compression.errors import CompressionError, UnsupportedTypeError
from compression.integer.kernels import OFFSET, pair, pool_window, sliding
from compression.integer.shapes import shapes_of
from compression.quantization import StaticQuantizedModel
from compression.quantization import modules as q

OPSET = 17


def export_onnx(model: StaticQuantizedModel, path: Path, example: Tensor) -> int:
    """Write `model` to `path` for inputs shaped like `example`, any batch size; return the bytes.

    Needs the package onnx. UnsupportedTypeError names a layer that QDQ cannot say.
    """
    try:
        import onnx
    except ImportError as error:
        raise CompressionError("export_onnx needs the package onnx: pip install onnx") from error
    builder = _Builder(model.network, shapes_of(model, example))
    builder.build()
    graph = onnx.helper.make_graph(
        builder.nodes,
        type(model).__name__,
        [_value("input", list(example.shape))],
        [_value(builder.result, builder.result_shape)],
        builder.constants,
    )
    opset = [onnx.helper.make_opsetid("", OPSET)]
    proto = onnx.helper.make_model(graph, opset_imports=opset, ir_version=8)
    onnx.checker.check_model(proto, full_check=True)
    data = proto.SerializeToString(deterministic=True)
    write_atomically(path, data)
    return len(data)


def _value(name: str, shape: list[int]) -> Any:
    from onnx import TensorProto, helper

    return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", *shape[1:]])


class _Builder:
    """Writes one node of the lowered network after another; `codes` names each value's codes."""

    def __init__(self, network: fx.GraphModule, shapes: dict[fx.Node, list[int]]) -> None:
        self.network, self.shapes = network, shapes
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        # a value's codes with their scale and zero point, or its real numbers
        self.codes: dict[fx.Node, tuple[str, str, str]] = {}
        self.real: dict[fx.Node, str] = {}
        self.result, self.result_shape = "", [0]

    def build(self) -> None:
        for node in self.network.graph.nodes:
            match node.op:
                case "placeholder":
                    self.real[node] = "input"
                case "output":
                    source = node.args[0]
                    self.result, self.result_shape = self.real[source], self.shapes[source]
                case "call_module":
                    self._layer(node, self.network.get_submodule(str(node.target)))
                case _ if node in self.shapes:
                    self._reshape(node)

    def _layer(self, node: fx.Node, layer: nn.Module) -> None:
        match layer:
            case q.Quantize():
                self._quantized(node, self.real[node.args[0]], layer)  # type: ignore[index]
            case q.Dequantize():
                self.real[node] = self._read(node.args[0])
            case q.QuantizedLayer():
                self._compressible(node, layer)
            case q.QuantizedJoin():
                parts = [self._read(a) for a in node.args]
                kind, options = (
                    ("Add", {}) if layer.dim is None else ("Concat", {"axis": layer.dim})
                )
                self._quantized(node, self._node(kind, parts, **options), layer)
            case q.QuantizedMean():
                self._quantized(node, self._mean(node, layer), layer)
            case q.OnCodes(function=nn.MaxPool2d() as pool):
                self._same_codes(node, self._max_pool(node, pool))
            case q.ClampCodes():
                self._same_codes(node, self._clamp(node, layer))
            case nn.Flatten():
                self._reshape(node)
            case _:
                raise UnsupportedTypeError(
                    f"{node.target}: ONNX's QDQ form has no {type(layer).__name__}"
                )

    def _node(self, kind: str, inputs: list[str], **attributes: Any) -> str:
        from onnx import helper

        name = f"{kind}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], name, **attributes))
        return name

    def _constant(self, array: Any) -> str:
        from onnx import numpy_helper

        name = f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(array, order="C"), name))
        return name

    def _read(self, source: Any) -> str:
        """Return the real numbers of a value: a DequantizeLinear of its own for each reader."""
        if source in self.codes:
            return self._node("DequantizeLinear", list(self.codes[source]))
        return self.real[source]

    def _quantized(self, node: fx.Node, real: str, layer: Any) -> None:
        scale = self._constant(layer.output_scale.numpy())
        zero_point = self._constant(np.uint8(int(layer.output_zero_point) + OFFSET))
        codes = self._node("QuantizeLinear", [real, scale, zero_point])
        self.codes[node] = codes, scale, zero_point

    def _same_codes(self, node: fx.Node, real: str) -> None:
        _, scale, zero_point = self.codes[node.args[0]]  # type: ignore[index]
        self.codes[node] = (
            self._node("QuantizeLinear", [real, scale, zero_point]),
            scale,
            zero_point,
        )

    def _compressible(self, node: fx.Node, layer: q.QuantizedLayer) -> None:
        if layer.transposed or layer.codes.ndim not in (2, 4):
            raise UnsupportedTypeError(
                f"{node.target}: the export knows 2-d convolutions and linear"
            )
        scale = layer.weight_scale
        weight = [self._constant(t.numpy()) for t in (layer.codes, scale)]
        weight.append(self._constant(np.zeros(len(scale), np.int8)))
        steps = (layer.input_scale.double() * scale.double()).float()
        bias = [self._constant(layer.bias.numpy()), self._constant(steps.numpy())]
        bias.append(self._constant(np.zeros(len(scale), np.int32)))
        inputs = [self._read(node.args[0])]
        inputs += [self._node("DequantizeLinear", part, axis=0) for part in (weight, bias)]
        if layer.codes.ndim == 2:
            real = self._node("Gemm", inputs, transB=1)
        else:
            stride, padding, dilation = sliding(layer)
            real = self._node(
                "Conv", inputs, group=layer.options["groups"], strides=stride,
                pads=padding * 2, dilations=dilation,
            )  # fmt: skip
        if len(node.args) > 1:
            real = self._node("Add", [real, self._read(node.args[1])])
        if layer.output_scale is None:
            self.real[node] = real
        else:
            self._quantized(node, real, layer)

    def _mean(self, node: fx.Node, layer: q.QuantizedMean) -> str:
        real, pool = self._read(node.args[0]), layer.pool
        before, after = self.shapes[node.args[0]], self.shapes[node]  # type: ignore[index]
        if isinstance(pool, nn.AvgPool2d):
            stride = pool.kernel_size if pool.stride is None else pool.stride
            return self._node(
                "AveragePool", [real], kernel_shape=pair(pool.kernel_size),
                strides=pair(stride), pads=pair(pool.padding) * 2,
                ceil_mode=int(pool.ceil_mode), count_include_pad=int(pool.count_include_pad),
            )  # fmt: skip
        if isinstance(pool, nn.AdaptiveAvgPool2d):
            window = [b // a for b, a in zip(before[2:], after[2:], strict=True)]
            if [w * a for w, a in zip(window, after[2:], strict=True)] != before[2:]:
                raise UnsupportedTypeError(f"{node.target}: {before[2:]} pixels into {after[2:]}")
            return self._node("AveragePool", [real], kernel_shape=window, strides=window)
        kept = len(after) == len(before)
        return self._node("ReduceMean", [real], axes=[2, 3], keepdims=int(kept))

    def _max_pool(self, node: fx.Node, pool: nn.MaxPool2d) -> str:
        size, stride, padding, dilation = pool_window(pool)
        return self._node(
            "MaxPool", [self._read(node.args[0])], kernel_shape=size, strides=stride,
            pads=padding * 2, dilations=dilation, ceil_mode=int(pool.ceil_mode),
        )  # fmt: skip

    def _clamp(self, node: fx.Node, layer: q.ClampCodes) -> str:
        real = self._read(node.args[0])
        if int(layer.high) == 127:
            return self._node("Relu", [real])
        return self._node(
            "Clip", [real, self._constant(np.float32(0)), self._constant(np.float32(6))]
        )

    def _reshape(self, node: fx.Node) -> None:
        source = node.args[0]
        shape = self._constant(np.array([-1, *self.shapes[node][1:]], np.int64))
        real = self._node("Reshape", [self._read(source), shape])
        if source in self.codes:
            self._same_codes(node, real)
        else:
            self.real[node] = real
