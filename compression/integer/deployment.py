"""The executors of a statically quantized network: torch's oneDNN kernels, or another engine."""

import shutil
import weakref
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import mkdtemp

import torch
from torch import Tensor, nn

from compression.errors import CompressionError, UnsupportedTypeError
from compression.integer.engines import (
    CompiledModel,
    Predict,
    compile_onnxruntime,
    compile_openvino,
)
from compression.integer.onednn import has_integer_kernels, lower_onednn
from compression.integer.onnx_file import export_onnx
from compression.quantization import StaticQuantizedModel

EXECUTORS: dict[str, tuple[str, ...]] = {
    "onednn": (),
    "openvino": ("openvino", "onnx"),
    "onnxruntime": ("onnxruntime", "onnx"),
}
"""The packages that each executor needs beside torch."""
_COMPILERS: dict[str, Callable[..., Predict]] = {
    "openvino": compile_openvino,
    "onnxruntime": compile_onnxruntime,
}


def deploy(model: nn.Module, example: Tensor, *, executor: str = "onednn") -> nn.Module:
    """Return what predicts inputs shaped like `example` here: `model` on integer kernels.

    By "onednn", where the CPU has them: layers without a kernel stay in float32, and every model that
    is not statically quantized is returned as it is. "openvino" and "onnxruntime" run the same scales
    and codes from its ONNX file on the CPU and need their packages. CompressionError for an executor
    that is unknown, is not installed or cannot run the model.
    """
    if executor not in EXECUTORS:
        raise CompressionError(
            f"executor must be one of {', '.join(EXECUTORS)}, found {executor!r}"
        )
    if executor != "onednn":
        return _compiled(model, example, executor)
    if isinstance(model, StaticQuantizedModel) and has_integer_kernels(example.device):
        return lower_onednn(model, example, fallback=True)
    return model


def _compiled(model: nn.Module, example: Tensor, executor: str) -> nn.Module:
    if not isinstance(model, StaticQuantizedModel) or example.device.type != "cpu":
        raise UnsupportedTypeError(
            f"executor {executor} runs statically quantized networks on the CPU, found "
            f"{type(model).__name__} on {example.device.type}; quantize_static makes one"
        )
    folder = mkdtemp(prefix="compression-")
    path = Path(folder) / "model.onnx"
    export_onnx(model, path, example)
    compiler = partial(_COMPILERS[executor], path, num_threads=torch.get_num_threads())
    compiled = CompiledModel(compiler)
    # The folder lives as long as the model: another shape reads the file again.
    weakref.finalize(compiled, shutil.rmtree, folder, ignore_errors=True)
    compiled(example)
    return compiled
