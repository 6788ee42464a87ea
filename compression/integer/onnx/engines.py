"""Other engines as executors: an ONNX or OpenVINO file compiled for one shape of inputs."""

import importlib
import threading
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from compression.errors import CompressionError
from compression.modes import ExecutorModel
from compression.nested import map_tensors

Predict = Callable[[Tensor], Any]
"""Real inputs (N, ...) of the compiled shape, float32 on the CPU -> real outputs in new memory, several
as a tuple."""


class CompiledModel(ExecutorModel):
    """A network's file run by another engine, compiled once for each shape of inputs.

    `engine` names it in errors. Threads may share it: they predict one after the other.
    """

    def __init__(
        self,
        compile_for: Callable[[torch.Size], Predict],
        *,
        engine: str = "the engine",
        inputs: torch.Size | None = None,
        structured: Callable[[Any], Any] = lambda outputs: outputs,
    ) -> None:
        """Take the function that compiles for a shape; `inputs` is that of an image, None for any.

        `structured` makes what `forward` returns of what a compiled network returns.
        """
        super().__init__()
        self.engine = engine
        self._compile_for, self._inputs, self._structured = compile_for, inputs, structured
        self._compiled: dict[torch.Size, Predict] = {}
        self._lock = threading.Lock()

    def forward(self, inputs: Tensor) -> Any:
        """Return real outputs of real inputs on the CPU, any number of images.

        CompressionError for inputs of another shape or place, and for what the engine refuses.
        """
        wanted = inputs.shape[1:] if self._inputs is None else self._inputs
        if not inputs.ndim or inputs.shape[1:] != wanted or inputs.device.type != "cpu":
            raise CompressionError(
                f"{self.engine} was made for inputs (N, {', '.join(map(str, wanted))}) on the CPU, "
                f"found {tuple(inputs.shape)} on {inputs.device}; deploy it for another size"
            )
        if len(inputs) == 0:  # engines compile for one image at least
            one = self(torch.zeros(1, *inputs.shape[1:]))
            return map_tensors(one, lambda output: output[:0], "outputs")
        images = inputs.detach().float().contiguous()
        with self._lock:
            try:
                if images.shape not in self._compiled:
                    self._compiled[images.shape] = self._compile_for(images.shape)
                return self._structured(self._compiled[images.shape](images))
            except CompressionError:
                raise
            except Exception as error:  # whatever the engine raises
                reason = (str(error).strip() or type(error).__name__).splitlines()[-1]
                raise CompressionError(
                    f"{self.engine} cannot predict inputs {tuple(inputs.shape)}: {reason}"
                ) from error


def compile_onnxruntime(path: Path, _: torch.Size, *, num_threads: int) -> Predict:
    """Return ONNX Runtime's prediction by the file, all graph optimizations on."""
    runtime = _package("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = num_threads
    session = runtime.InferenceSession(str(path), options, ["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda inputs: _tensors(session.run(None, {name: inputs.numpy()}))


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
    return partial(_in_parts, [compiled.create_infer_request() for _ in range(parts)])


def _in_parts(requests: list[Any], inputs: Tensor) -> Any:
    """Predict with as many OpenVINO requests at a time as there are."""
    # The arrays are shared with the engine until it ends.
    images = [part.numpy() for part in inputs.chunk(len(requests))]
    for request, part in zip(requests, images, strict=True):
        request.start_async(part, share_inputs=True)
    for request in requests:
        request.wait()
    # A copy: the engine writes the next prediction where this one lies.
    parts = [[tensor.data for tensor in request.output_tensors] for request in requests]
    return _tensors([np.concatenate(own) for own in zip(*parts, strict=True)])


def _tensors(arrays: Sequence[Any]) -> Any:
    """Return one output, or a tuple of several."""
    tensors = tuple(torch.from_numpy(array) for array in arrays)
    return tensors[0] if len(tensors) == 1 else tensors


def _package(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise CompressionError(
            f"this executor needs the package {name}: pip install {name}"
        ) from error
