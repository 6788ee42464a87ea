"""The executors of a statically quantized network: our kernels, torch's, or another engine."""

import importlib.util
import logging
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
from compression.integer.native import library, lower_native
from compression.integer.onednn import has_integer_kernels, lower_onednn
from compression.integer.onnx_file import export_onnx
from compression.integer.triton import lower_triton
from compression.quantization import StaticQuantizedModel

log = logging.getLogger(__name__)

EXECUTORS: dict[str, tuple[str, ...]] = {
    "native": (),
    "onednn": (),
    "openvino": ("openvino", "onnx"),
    "onnxruntime": ("onnxruntime", "onnx"),
    "triton": ("triton",),
}
"""The packages that each executor needs beside torch."""
PREFERRED: dict[str, tuple[str, ...]] = {"cpu": ("native", "onednn"), "cuda": ("triton",)}
"""Our own executors by kind of device, the fastest first; the other engines are the CPU's."""
COMPUTE_CAPABILITY = (8, 0)
"""The first whose tensor cores Triton gives int8 products to."""
_LOWER: dict[str, Callable[[StaticQuantizedModel, Tensor], nn.Module]] = {
    "native": lower_native,
    "onednn": partial(lower_onednn, fallback=True),
    "triton": lower_triton,
}
_COMPILERS: dict[str, Callable[..., Predict]] = {
    "openvino": compile_openvino,
    "onnxruntime": compile_onnxruntime,
}


def lacking(executor: str) -> str | None:
    """Say what an executor lacks on this machine, None where it can run."""
    absent = [p for p in EXECUTORS[executor] if importlib.util.find_spec(p) is None]
    if absent:
        return f"executor {executor} needs {', '.join(absent)}: pip install {' '.join(absent)}"
    if executor == "native":
        try:
            library()
        except CompressionError as error:
            return str(error)
    if executor == "onednn" and not has_integer_kernels("cpu"):
        return "executor onednn needs a CPU with VNNI or AMX: on this one its products saturate"
    if executor == "triton" and not _has_tensor_cores():
        return "executor triton needs an NVIDIA GPU of compute capability 8.0 or more"
    return None


def device_of(executor: str) -> str:
    """Return the kind of device that an executor runs on."""
    return "cuda" if executor in PREFERRED["cuda"] else "cpu"


def _has_tensor_cores() -> bool:
    return torch.cuda.is_available() and torch.cuda.get_device_capability() >= COMPUTE_CAPABILITY


def deploy(model: nn.Module, example: Tensor, *, executor: str | None = None) -> nn.Module:
    """Return what predicts inputs shaped like `example` here: `model` on integer kernels.

    On the CPU "native" runs on C kernels that the machine's compiler builds once (AVX-512 with VNNI);
    "onednn" on torch's own; "openvino" and "onnxruntime" run the same scales and codes from its ONNX
    file and need their packages. On an NVIDIA GPU "triton" runs on kernels that Triton compiles for the
    batch of `example`. By default "triton" on a GPU, else the first of "native" and "onednn" that can,
    where oneDNN computes layers without a kernel in float32; a model that is not statically quantized,
    or a machine without any, gets `model` as it is. CompressionError for an executor that is unknown,
    is not there or cannot run the model.
    """
    if executor is None:
        return _fastest(model, example) if isinstance(model, StaticQuantizedModel) else model
    if executor not in EXECUTORS:
        raise CompressionError(
            f"executor must be one of {', '.join(EXECUTORS)}, found {executor!r}"
        )
    place = device_of(executor)
    if not isinstance(model, StaticQuantizedModel) or example.device.type != place:
        raise UnsupportedTypeError(
            f"executor {executor} runs statically quantized networks on {place}, found "
            f"{type(model).__name__} on {example.device.type}; quantize_static makes one"
        )
    reason = lacking(executor)
    if reason:
        raise CompressionError(reason)
    if executor in _LOWER:
        return _LOWER[executor](model, example)
    return _compiled(model, example, executor)


def _fastest(model: StaticQuantizedModel, example: Tensor) -> nn.Module:
    on_cpu = example.device.type == "cpu"
    executor = PREFERRED["cpu" if on_cpu else "cuda"][0]
    reason = lacking(executor)
    if not reason:
        try:
            return _LOWER[executor](model, example)
        except CompressionError as error:
            reason = str(error)
    log.info("not on the %s executor: %s", executor, reason)
    if on_cpu and not lacking("onednn"):
        return _LOWER["onednn"](model, example)
    return model


def _compiled(model: StaticQuantizedModel, example: Tensor, executor: str) -> nn.Module:
    folder = mkdtemp(prefix="compression-")
    path = Path(folder) / "model.onnx"
    export_onnx(model, path, example)
    compiler = partial(_COMPILERS[executor], path, num_threads=torch.get_num_threads())
    compiled = CompiledModel(compiler)
    # The folder lives as long as the model: another shape reads the file again.
    weakref.finalize(compiled, shutil.rmtree, folder, ignore_errors=True)
    compiled(example)
    return compiled
