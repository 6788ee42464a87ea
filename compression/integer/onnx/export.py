"""The quantized network as an ONNX file in QDQ form, with our scales and codes.

Every value that the integer network rounds stands between QuantizeLinear and DequantizeLinear, which
ONNX Runtime, OpenVINO and TensorRT fuse into their integer kernels. Activations are uint8 (our int8
codes plus 128), weights int8 per output channel, biases int32. What stays in float32 stands between
the two as nodes of its own.
"""

from pathlib import Path
from typing import Any

from compression.atomic import write_atomically
from compression.errors import CompressionError, UnsupportedTypeError
from compression.integer.batch_axis import images_first
from compression.integer.onnx.builder import Builder
from compression.integer.onnx.graph import OPSET
from compression.integer.shapes import shapes_and_moves
from compression.quantization import StaticQuantizedModel
from compression.training import example_of


def export_onnx(model: StaticQuantizedModel, path: Path, example: Any) -> int:
    """Write `model` to `path` for inputs shaped like `example`, any batch size; return the bytes.

    The example is a batch of inputs, or a Dataset, of which the first is one.
    Several outputs are named by their paths: "out", "0", "boxes.1". Operators that stay in float32
    (fallback=True) are written by torch's exporter, float between DequantizeLinear and QuantizeLinear.
    Needs the package onnx, and for such operators onnxscript. UnsupportedTypeError names a layer that
    QDQ cannot say, an operator that torch's exporter cannot, a node that fixes the batch, and a network
    that is not statically quantized.

    >>> from tempfile import mkdtemp
    >>> from compression import quantize_static
    >>> small = quantize_static(nn.Sequential(nn.Linear(4, 2)), torch.randn(16, 4))
    >>> path = Path(mkdtemp()) / "small.onnx"
    >>> export_onnx(small, path, torch.randn(1, 4)) == path.stat().st_size
    True
    """
    try:
        import onnx
    except ImportError as error:
        raise CompressionError("export_onnx needs the package onnx: pip install onnx") from error
    _check_static(model)
    example = example_of(example)
    model = images_first(model, example)
    builder = Builder(model.network, *shapes_and_moves(model, example))
    builder.build()
    graph = onnx.helper.make_graph(
        builder.graph.nodes,
        type(model).__name__,
        [_value("input", list(example.shape))],
        [_value(name, shape) for name, shape in builder.results],
        builder.graph.read_constants(),
    )
    opset = [onnx.helper.make_opsetid("", OPSET)]
    proto = onnx.helper.make_model(graph, opset_imports=opset, ir_version=8)
    onnx.checker.check_model(proto, full_check=True)
    data = proto.SerializeToString(deterministic=True)
    write_atomically(path, data)
    return len(data)


def _check_static(model: object) -> None:
    if not isinstance(model, StaticQuantizedModel):
        raise UnsupportedTypeError(
            f"export_onnx writes statically quantized networks, found {type(model).__name__}; "
            "quantize_static makes one"
        )


def _value(name: str, shape: list[int]) -> Any:
    from onnx import TensorProto, helper

    return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", *shape[1:]])
