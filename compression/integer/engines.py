"""Other engines as executors: an ONNX or OpenVINO file compiled for one shape of inputs."""

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from compression.errors import CompressionError

Predict = Callable[[Tensor], Tensor]
"""Real inputs (N, C, H, W) of the compiled shape -> real outputs."""


class CompiledModel(nn.Module):
    """A network's file run by another engine, compiled once for each shape of inputs."""

    simulated = False

    def __init__(self, compile_for: Callable[[torch.Size], Predict]) -> None:
        """Take the function that compiles for a shape."""
        super().__init__()
        self._compile_for = compile_for
        self._compiled: dict[torch.Size, Predict] = {}

    def forward(self, inputs: Tensor) -> Tensor:
        """Return real outputs of real inputs on the CPU."""
        if inputs.shape not in self._compiled:
            self._compiled[inputs.shape] = self._compile_for(inputs.shape)
        return self._compiled[inputs.shape](inputs)


def compile_onnxruntime(path: Path, _: torch.Size, *, num_threads: int) -> Predict:
    """Return ONNX Runtime's prediction by the file, all graph optimizations on."""
    runtime = _package("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = num_threads
    session = runtime.InferenceSession(str(path), options, ["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda inputs: torch.from_numpy(session.run(None, {name: inputs.numpy()})[0])


def compile_openvino(
    path: Path, shape: torch.Size, *, num_threads: int, precision: str = "f32"
) -> Predict:
    """Return OpenVINO's prediction by the file for inputs of `shape`.

    One input by its latency hint; more by its throughput hint, in as many equal parts at a time as
    it has streams. `precision` is its hint for what is not quantized: f32 or bf16.
    """
    core = _package("openvino").Core()
    model = core.read_model(str(path))
    hint = "LATENCY" if shape[0] == 1 else "THROUGHPUT"
    options = {
        "INFERENCE_NUM_THREADS": num_threads,
        "PERFORMANCE_HINT": hint,
        "INFERENCE_PRECISION_HINT": precision,
    }
    parts = next(n for n in range(min(num_threads, shape[0]), 0, -1) if shape[0] % n == 0)
    model.reshape([shape[0] // parts, *shape[1:]])
    compiled = core.compile_model(model, "CPU", options)
    requests = [compiled.create_infer_request() for _ in range(parts)]

    def predict(inputs: Tensor) -> Tensor:
        for request, part in zip(requests, inputs.chunk(parts), strict=True):
            request.start_async(part.numpy(), share_inputs=True)
        for request in requests:
            request.wait()
        return torch.from_numpy(
            np.concatenate([request.get_output_tensor().data for request in requests])
        )

    return predict


def _package(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise CompressionError(
            f"this executor needs the package {name}: pip install {name}"
        ) from error
