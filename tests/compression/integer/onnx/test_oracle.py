"""ONNX Runtime divides as we do: its codes are the oracle."""

import pytest
import torch

from compression.affine import choose_qparams, quantize

onnxruntime = pytest.importorskip("onnxruntime", reason="the oracle is in the extra dev")
helper = pytest.importorskip("onnx.helper", reason="the oracle needs onnx to state the graph")


def test_codes_are_those_of_onnx_runtime() -> None:
    from onnx import TensorProto

    x = torch.randn(200_000, generator=torch.Generator().manual_seed(0))
    qparams = choose_qparams(x, symmetric=False)
    node = helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"])
    graph = helper.make_graph(
        [node],
        "quantize",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None])],
        [helper.make_tensor_value_info("q", TensorProto.INT8, [None])],
        [
            helper.make_tensor("s", TensorProto.FLOAT, [], [float(qparams.scale)]),
            helper.make_tensor("z", TensorProto.INT8, [], [int(qparams.zero_point)]),
        ],
    )
    opset = [helper.make_opsetid("", 13)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    (codes,) = session.run(None, {"x": x.numpy()})
    assert torch.equal(torch.from_numpy(codes), quantize(x, qparams))
