"""Operators that stay in float32, as torch's exporter says them: their own nodes, between codes."""

import importlib.util
import warnings
from typing import Any

import torch
from torch import nn

from compression.errors import CompressionError, UnsupportedTypeError
from compression.integer.onnx.graph import OPSET, bodies
from compression.quantization.fallback import FloatOperator

MISREAD = {"Conv", "ConvTranspose", "Gemm", "Pad", "Softmax"}
"""What an engine takes into its integer kernels where it reads a DequantizeLinear, and gets wrong.

ONNX Runtime 1.32 rounds the float weights of the first three to codes, and its QLinearSoftmax is off
by a code for one number in ten. OpenVINO 2026.4 gives the border of a Pad zero points of its own.
"""


def alone(operator: FloatOperator, shapes: list[list[int]]) -> Any:
    """Return an operator as an onnx.GraphProto that reads numbers of these shapes, those of an image.

    It takes any number of images. CompressionError without the package onnxscript,
    UnsupportedTypeError for what torch's exporter or the opset cannot say, and for what fixes the
    number of images: each names the operator.
    """
    if importlib.util.find_spec("onnxscript") is None:
        raise CompressionError(
            f"the operator at {operator.place} stays in float32 (fallback=True), and export_onnx needs "
            "the package onnxscript to write it: pip install onnxscript"
        )
    if any(isinstance(part, nn.LSTM) and part.proj_size for part in operator.modules()):
        # torch 2.14's exporter writes one whose shapes do not fit.
        raise _refusal(operator, "ONNX's LSTM has no projection (proj_size)")
    try:
        piece = _exported(operator, shapes)
    except Exception as error:  # whatever torch's exporter and onnx raise
        raise _refusal(operator, _first_line(error)) from error
    if reason := _unfit(piece):
        raise _refusal(operator, reason)
    return piece.graph


def is_misread(graph: Any) -> bool:
    """Tell whether an engine may get an operator wrong where it reads a DequantizeLinear."""
    return any(node.op_type in MISREAD for body in bodies(graph) for node in body.node)


def _exported(operator: FloatOperator, shapes: list[list[int]]) -> Any:
    import onnx
    from onnx.inliner import inline_local_functions

    tensors = (*operator.parameters(), *operator.buffers())
    device = tensors[0].device if tensors else torch.device("cpu")
    # Two images: the exporter takes a size of 1 for one that never changes.
    images = tuple(torch.zeros(2, *shape[1:], device=device) for shape in shapes)
    any_number = tuple({0: torch.export.Dim.AUTO} for _ in images)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's, of its own workings
        program = torch.onnx.export(
            operator, images, dynamo=True, opset_version=OPSET, dynamic_shapes=(any_number,),
            verbose=False,
        )  # fmt: skip
    assert program is not None
    piece = inline_local_functions(program.model_proto)
    onnx.checker.check_model(piece, full_check=True)
    return piece


def _unfit(piece: Any) -> str:
    """Tell why a checked model cannot stand within ours; nothing where it can."""
    from onnx import TensorProto

    domains = {node.domain for body in bodies(piece.graph) for node in body.node} - {"", "ai.onnx"}
    ends = [end.type.tensor_type for end in (*piece.graph.input, *piece.graph.output)]
    if domains:
        return f"it needs operators of {', '.join(sorted(domains))}, expected ONNX's own"
    if any(own.version != OPSET for own in piece.opset_import if own.domain == ""):
        return f"it needs another opset than {OPSET}"
    if not all(end.shape.dim and end.shape.dim[0].dim_param for end in ends):
        return "it fixes the number of images"
    if any(end.elem_type != TensorProto.FLOAT for end in ends):
        return "it gives other numbers than float32"
    return ""


def _refusal(operator: FloatOperator, reason: str) -> UnsupportedTypeError:
    return UnsupportedTypeError(
        f"the operator at {operator.place} stays in float32 (fallback=True), and torch's exporter does "
        f"not say it in ONNX: {reason}; end the network before it, or deploy it here"
    )


def _first_line(error: BaseException) -> str:
    """Return the first line of the error that was raised first."""
    while error.__cause__ is not None:
        error = error.__cause__
    return (str(error).strip() or type(error).__name__).splitlines()[0]
