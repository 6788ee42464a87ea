"""The ONNX file of a quantized network: what other engines compute of it is the reference."""

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch
from torch import Tensor, nn

from compression.errors import CompressionError, UnsupportedTypeError
from compression.integer import export_onnx
from compression.integer.onnx.engines import compile_onnxruntime, compile_openvino
from compression.integer.onnx.graph import OPSET, Graph
from compression.quantization import StaticQuantizedModel, quantize_dynamic, quantize_static
from tests.support.integer_nets import numbers
from tests.support.tricky_nets import NETS, Net, made

pytest.importorskip("onnx", reason="the export needs it; the extra dev installs it")
pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same'")  # torch's own

# engine: (how it compiles a file, bound on the relative error, reason)
ENGINES = {
    "onnxruntime": (compile_onnxruntime, 0.005, "a tie rounds to either side"),
    "openvino": (compile_openvino, 0.02, "it multiplies by a reciprocal scale: more ties move"),
}


@cache
def exported(name: str) -> tuple[Path, Tensor, Tensor, "TemporaryDirectory[str]"]:
    """Return a network's file, images and the reference's outputs; the folder lives with them."""
    model, x = made(name)
    reference = quantize_static(model, x)
    folder = TemporaryDirectory()
    path = Path(folder.name) / "model.onnx"
    assert export_onnx(reference, path, x) == path.stat().st_size
    with torch.no_grad():
        return path, x, reference(x), folder


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("engine", ENGINES)
def test_engines_give_the_outputs_of_the_reference(engine: str, name: str) -> None:
    pytest.importorskip(engine, reason="an engine that the extra peers installs")
    compiler, bound, _ = ENGINES[engine]
    path, x, wanted, _ = exported(name)
    for count in (len(x), 1):
        found = compiler(path, x[:count].shape, num_threads=1)(x[:count])
        assert found.shape == wanted[:count].shape
        assert (found - wanted[:count]).norm() <= bound * wanted[:count].norm()


@pytest.mark.parametrize("name", ["average over a border", "signals", "slices", "clamps"])
def test_the_file_holds_no_border_of_an_average(name: str) -> None:
    """OpenVINO takes a border of real numbers for codes 0, whatever the zero point is."""
    import onnx

    path, *_ = exported(name)
    nodes = onnx.load(path).graph.node
    for node in nodes:
        if node.op_type == "AveragePool":
            assert {a.name for a in node.attribute} == {"kernel_shape", "strides"}
        if node.op_type == "Pad":
            assert "QuantizeLinear" in node.input[0] or "Reshape" in node.input[0]


def test_bounds_of_a_clamp_are_its_own() -> None:
    import onnx
    from onnx import numpy_helper

    path, *_ = exported("clamps")
    graph = onnx.load(path).graph
    constants = {c.name: numpy_helper.to_array(c) for c in graph.initializer}
    found = [
        [None if name == "" else float(constants[name]) for name in node.input[1:]]
        for node in graph.node
        if node.op_type == "Clip"
    ]
    near = 0.02  # half a code of values up to 2
    assert len(found) == 2
    both, above = sorted(found, key=lambda bounds: bounds[0] is None)
    assert both == pytest.approx([-0.5, 0.7], abs=near)
    assert above[0] is None
    assert above[1] == pytest.approx(0.3, abs=near)


def static(how, x: Tensor, **layers: nn.Module) -> StaticQuantizedModel:
    torch.manual_seed(0)
    return quantize_static(Net(how, **layers).eval(), x)


def test_a_fixed_batch_is_refused_by_name_and_leaves_no_file(tmp_path: Path) -> None:
    x = numbers(1, 3, 8, 8)
    fixed = static(
        lambda s, x: s.b(s.a(x).view(1, -1)), x, a=nn.Conv2d(3, 4, 3), b=nn.Linear(144, 2)
    )
    with pytest.raises(UnsupportedTypeError, match="the batch is fixed at view"):
        export_onnx(fixed, tmp_path / "model.onnx", x)
    with pytest.raises(CompressionError, match="at least one image"):
        export_onnx(fixed, tmp_path / "model.onnx", x[:0])
    assert not list(tmp_path.iterdir())


def test_an_average_too_large_for_a_matrix_is_refused_by_name(tmp_path: Path) -> None:
    x = numbers(1, 3, 101, 101)
    model = static(
        lambda s, x: s.pool(s.a(x)), x, a=nn.Conv2d(3, 2, 1), pool=nn.AdaptiveAvgPool2d(50)
    )
    with pytest.raises(UnsupportedTypeError, match=r"^pool: ONNX has no average of \[101, 101\]"):
        export_onnx(model, tmp_path / "model.onnx", x)


def test_moved_numbers_are_said_by_the_simplest_operator() -> None:
    import onnx

    kinds = {
        "view by shape": "Reshape", "slice of the logits": "Slice", "channels last": "Transpose",
        "slices": "Slice",
    }  # fmt: skip
    for name, kind in kinds.items():
        path, *_ = exported(name)
        found = {node.op_type for node in onnx.load(path).graph.node}
        assert kind in found
        assert not found & {"Gather", "Slice", "Transpose", "Reshape"} - {kind}


def test_what_no_simple_operator_moves_is_gathered() -> None:
    runtime = pytest.importorskip("onnxruntime", reason="the extra dev installs it")
    from onnx import TensorProto, helper

    places = torch.tensor([5, 0, 3, 3, 1, 2]).view(1, 3, 2)
    graph = Graph()
    result = graph.move("x", places, [1, 6], [1, 3, 2])
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", *shape])
        for name, shape in (("x", [6]), (result, [3, 2]))
    ]
    made = helper.make_graph(graph.nodes, "moved", ends[:1], ends[1:], graph.constants)
    opset = [helper.make_opsetid("", OPSET)]
    model = helper.make_model(made, opset_imports=opset, ir_version=8)
    x = numbers(4, 6)
    (found,) = runtime.InferenceSession(model.SerializeToString()).run(None, {"x": x.numpy()})
    assert torch.equal(torch.from_numpy(found), x[:, places[0]])


def test_other_networks_are_refused_and_leave_no_file(tmp_path: Path) -> None:
    x, network = torch.randn(2, 8), nn.Sequential(nn.Linear(8, 4))
    for other in (network, quantize_dynamic(network), quantize_dynamic(nn.GRU(8, 4))):
        with pytest.raises(
            UnsupportedTypeError, match="writes statically quantized networks, found"
        ):
            export_onnx(other, tmp_path / "model.onnx", x)
    assert list(tmp_path.iterdir()) == []


def test_every_constant_is_read(tmp_path: Path) -> None:
    import onnx

    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.MaxPool2d(3, 2, ceil_mode=True), nn.Conv2d(4, 2, 1))
    x = numbers(4, 3, 11, 11)
    export_onnx(quantize_static(net.eval(), x), tmp_path / "net.onnx", x)
    graph = onnx.load(str(tmp_path / "net.onnx")).graph
    assert {c.name for c in graph.initializer} <= {
        name for node in graph.node for name in node.input
    }
