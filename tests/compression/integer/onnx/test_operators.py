"""Operators that stay in float32 in the ONNX file: other engines compute the reference's codes."""

import sys
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import resnet

from compression.errors import CompressionError, UnsupportedTypeError
from compression.integer import deploy, export_onnx
from compression.integer.onnx.engines import CompiledModel, compile_onnxruntime, compile_openvino
from compression.integer.onnx.graph import OPSET, Graph
from compression.layers import left_out
from compression.nested import tensors_in
from compression.quantization import StaticQuantizedModel, quantize_static
from compression.quantization.modules import InFloat, Quantize
from tests.support.fallback_nets import OPERATORS, PARTS, Mixed, Sequences, parts, single
from tests.support.integer_nets import numbers
from tests.support.small_torchvision import SMALL
from tests.support.transformer_nets import Made, lively, swin
from tests.support.tricky_nets import Net

pytest.importorskip("onnx", reason="the export needs it; the extra dev installs it")
pytest.importorskip("onnxscript", reason="torch's exporter needs it; the extra dev installs it")

# engine: (how it compiles a file, bound on the relative error of a network's outputs, reason)
ENGINES: dict[str, tuple[Callable[..., Any], float, str]] = {
    "onnxruntime": (compile_onnxruntime, 0.005, "a tie rounds to either side"),
    "openvino": (compile_openvino, 0.02, "it multiplies by a reciprocal scale: more ties move"),
}
MOVED = (0.001, "the last bit of a sum in another order, or of a function, moves a tie")
"""The share of a float operator's codes that may differ, by 1, and the reason."""
UNKNOWN = {"openvino, a border that wraps": "OpenVINO 2026.4 has no Pad that wraps"}


@cache
def exported(name: str) -> tuple[StaticQuantizedModel, Path, "TemporaryDirectory[str]"]:
    """Return the INT8 network of one operator and its file; the folder lives with them."""
    net, x = single(name)
    small = quantize_static(net, x, fallback=True)
    folder = TemporaryDirectory()
    path = Path(folder.name) / "model.onnx"
    assert export_onnx(small, path, x[:3]) == path.stat().st_size
    return small, path, folder


def on_codes(small: StaticQuantizedModel, count: int, shape: torch.Size) -> Tensor:
    """Return inputs that are numbers of codes, which no engine rounds otherwise."""
    (first,) = (m for m in small.modules() if isinstance(m, Quantize))
    draw = torch.Generator().manual_seed(1)
    codes = torch.randint(-128, 128, (count, *shape), generator=draw)
    return (codes - first.output_zero_point) * first.output_scale


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("engine", ENGINES)
@torch.no_grad()
def test_engines_give_the_codes_of_the_reference(engine: str, name: str) -> None:
    pytest.importorskip(engine, reason="an engine that the extra peers installs")
    small, path, _ = exported(name)
    where = f"{engine}, {name}"
    compiled = CompiledModel(partial(ENGINES[engine][0], path, num_threads=1), engine=engine)
    (operator,) = (m for m in small.modules() if isinstance(m, InFloat))
    x = on_codes(small, 64, single(name)[1].shape[1:])
    for count in (64, 1):  # exported for three
        if where in UNKNOWN:
            with pytest.raises(CompressionError, match="openvino cannot predict"):
                compiled(x[:count])
            continue
        found, wanted = compiled(x[:count])[0], small(x[:count])[0]
        assert found.shape == wanted.shape
        apart = ((found - wanted) / operator.output_scale).abs().round()
        assert apart.max() <= 1
        assert apart.mean() <= MOVED[0]


def groups() -> Made:
    """Torchvision's ResNet with norms of groups."""
    torch.manual_seed(0)
    norm = partial(nn.GroupNorm, 4)
    net = resnet.ResNet(resnet.BasicBlock, [1, 1, 1, 1], num_classes=5, norm_layer=norm)
    net.layer3, net.layer4, net.fc = nn.Identity(), nn.Identity(), nn.Linear(128, 5)  # type: ignore[assignment]
    return lively(net), numbers(4, 3, 32, 32)


def hooked() -> Made:
    """Torchvision's Swin, one of whose attentions is computed whole."""
    net, x = swin()
    attention: Any = net.get_submodule("features.1.0.attn")
    attention.register_forward_hook(lambda _, __, out: out + 1)
    return net, x


def swin_v2() -> Made:
    make, size = SMALL["swin_v2"]
    torch.manual_seed(0)
    return lively(make()), numbers(4, 3, size, size)


def bordered() -> Made:
    torch.manual_seed(0)
    border = nn.ZeroPad2d((1, 1, 0, 0))
    net = nn.Sequential(nn.Conv2d(3, 2, 3), nn.MaxPool2d(2, 2, 1), border)
    return net.eval(), numbers(8, 3, 8, 8)


def of_parts(name: str) -> Made:
    return parts(name), numbers(5, 3, 6, 4)


# network: (how it is made, operators that stay; 0 for those counted elsewhere)
WHOLE: dict[str, tuple[Callable[[], Made], int]] = {
    "mixed": (lambda: (Mixed().eval(), numbers(8, 3, 4, 5)), 6),
    "classifier of sequences": (lambda: (Sequences().eval(), numbers(8, 7, 6)), 1),
    "norms of groups": (groups, 0),
    "swin, hooked": (hooked, 1),
    "swin_v2": (swin_v2, 3),
    "a border after a pool": (bordered, 0),
    **{n: (partial(of_parts, n), 0) for n in PARTS if n != "a cell"},  # whose batch is fixed
}


@pytest.mark.parametrize("name", WHOLE)
@torch.no_grad()
def test_whole_networks_give_the_outputs_of_the_reference(name: str, tmp_path: Path) -> None:
    make, count = WHOLE[name]
    net, x = make()
    small = quantize_static(net, x, fallback=True)
    assert len(left_out(small)) == count or not count
    export_onnx(small, tmp_path / "net.onnx", x[:2])
    for engine, (compiler, bound, _) in ENGINES.items():
        if engine == "openvino":
            pytest.importorskip(engine, reason="an engine that the extra peers installs")
        for images in (x, x[:1]):
            found = compiler(tmp_path / "net.onnx", images.shape, num_threads=1)(images)
            for one, wanted in zip(tensors_in(found), tensors_in(small(images)), strict=True):
                assert one.shape == wanted.shape
                assert (one - wanted).norm() <= bound * wanted.norm()


def test_the_file_holds_the_weights_to_the_bit_and_no_traces(tmp_path: Path) -> None:
    import onnx
    from onnx import numpy_helper

    net, x = Sequences().eval(), numbers(8, 7, 6)
    small = quantize_static(net, x, fallback=True)
    before = {name: t.clone() for name, t in small.state_dict().items()}
    for file in ("one", "two"):
        export_onnx(small, tmp_path / file, x)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    assert all(torch.equal(t, before[name]) for name, t in small.state_dict().items())
    graph = onnx.load(tmp_path / "one").graph
    held = {float(v) for c in graph.initializer for v in numpy_helper.to_array(c).flatten()}
    assert {v for p in net.lstm.parameters() for v in p.detach().flatten().tolist()} <= held
    assert not any(node.metadata_props or node.doc_string for node in graph.node)
    assert {n.op_type for n in graph.node} >= {"LSTM", "Gemm", "QuantizeLinear"}


def by_rows(x: Tensor) -> Tensor:
    return torch.stack([row.cumsum(0) for row in x])


torch.fx.wrap("by_rows")
PROJECTED = nn.LSTM(8, 6, proj_size=4, batch_first=True)
# what: (how, layer, what is said)
REFUSED: dict[str, tuple[Callable[[Any, Tensor], Tensor], nn.Module, str]] = {
    "no translation": (lambda _, x: torch.cdist(x, x), nn.Identity(), "_cdist_forward"),
    "a projection": (lambda s, x: s.r(x)[0], PROJECTED, r"no projection \(proj_size\)"),
    "a loop over images": (lambda _, x: by_rows(x), nn.Identity(), "fixes the number of images"),
    "other numbers": (lambda _, x: x.cumsum(1, dtype=torch.float64), nn.Identity(), "than float32"),
}


@pytest.mark.filterwarnings("ignore:LSTM with projections")  # torch's own
@pytest.mark.parametrize("name", REFUSED)
def test_what_the_exporter_cannot_say_is_refused_by_name(name: str, tmp_path: Path) -> None:
    how, layer, said = REFUSED[name]
    x = numbers(4, 6, 8)
    net = Net(lambda s, x: (how(s, x), s.f(x)), r=layer, f=nn.Linear(8, 2)).eval()  # type: ignore[arg-type,return-value]
    small = quantize_static(net, x, fallback=True)
    with pytest.raises(
        UnsupportedTypeError, match=rf"^\w+: .* at .*stays in float32.*{said}.*deploy it"
    ):
        export_onnx(small, tmp_path / "net.onnx", x)
    assert list(tmp_path.iterdir()) == []


def test_without_onnxscript_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    small, _, _ = exported("einsum")
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(CompressionError, match=r"^einsum: .* pip install onnxscript"):
        export_onnx(small, tmp_path / "net.onnx", numbers(1, 6, 8))
    assert list(tmp_path.iterdir()) == []


@torch.no_grad()
def test_deploy_takes_the_file_by_name() -> None:
    small, _, _ = exported("LSTM")
    x = numbers(3, 6, 8)
    integer = deploy(small, x, executor="onnxruntime")
    assert isinstance(integer, CompiledModel)
    for found, wanted in zip(integer(x), small(x), strict=True):
        assert torch.allclose(found, wanted, atol=0.05)


def test_graphs_within_nodes_are_renamed_and_their_constants_kept() -> None:
    """If, Loop and Scan hold graphs that read what is around them."""
    runtime = pytest.importorskip("onnxruntime", reason="the extra dev installs it")
    import onnx
    from onnx import parser

    piece = parser.parse_graph(
        """piece (float[N] x) => (float[N] y) <float three = {3}, float zero = {0}> {
            total = ReduceSum <keepdims = 0> (x)
            positive = Greater (total, zero)
            y = If (positive) <
                then_branch = up () => (float[N] a) { a = Mul (x, three) },
                else_branch = down () => (float[N] b) { b = Sub (x, three) }
            >
        }"""
    )
    graph = Graph()
    first = graph.insert(piece.__class__.FromString(piece.SerializeToString()), ["input"])
    second = graph.insert(piece, [first])
    assert len(graph.read_constants()) == 4
    ends = [onnx.helper.make_tensor_value_info(n, 1, ["N"]) for n in ("input", second)]
    whole = onnx.helper.make_graph(graph.nodes, "twice", ends[:1], ends[1:], graph.read_constants())
    opset = [onnx.helper.make_opsetid("", OPSET)]
    model = onnx.helper.make_model(whole, opset_imports=opset, ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    session = runtime.InferenceSession(model.SerializeToString())
    for x, wanted in (([1.0, 2.0], [9.0, 18.0]), ([-1.0, -2.0], [-7.0, -8.0])):
        (found,) = session.run(None, {"input": torch.tensor(x).numpy()})
        assert found.tolist() == wanted
