"""A quantized network on another engine, by way of its ONNX file."""

import shutil
import weakref
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import torch
from torch import Tensor

from compression.integer.onnx.engines import (
    CompiledModel,
    Predict,
    compile_onnxruntime,
    compile_openvino,
)
from compression.integer.onnx.export import export_onnx
from compression.quantization import StaticQuantizedModel
from compression.quantization.ends import returned, structured


def lower_onnxruntime(model: StaticQuantizedModel, example: Tensor) -> CompiledModel:
    """Return `model` on ONNX Runtime, for inputs shaped like `example` in any number."""
    return _lower(model, example, "onnxruntime", compile_onnxruntime)


def lower_openvino(model: StaticQuantizedModel, example: Tensor) -> CompiledModel:
    """Return `model` on OpenVINO, for inputs shaped like `example` in any number."""
    return _lower(model, example, "openvino", compile_openvino)


def _lower(
    model: StaticQuantizedModel, example: Tensor, executor: str, compiler: Callable[..., Predict]
) -> CompiledModel:
    graph = model.network.graph
    outputs = [node for _, node in returned(graph)]

    def in_places(found: Any) -> Any:
        tensors = found if isinstance(found, tuple) else (found,)
        return structured(graph, dict(zip(outputs, tensors, strict=True)))

    folder = mkdtemp(prefix="compression-")
    path = Path(folder) / "model.onnx"
    lowered = CompiledModel(
        partial(compiler, path, num_threads=torch.get_num_threads()),
        engine=f"executor {executor}",
        inputs=torch.Size(example.shape[1:]),
        structured=in_places,
    )
    # The folder lives as long as the model: another shape reads the file again.
    weakref.finalize(lowered, shutil.rmtree, folder, ignore_errors=True)
    export_onnx(model, path, example)
    return lowered
