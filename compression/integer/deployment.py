"""The executors of a statically quantized network: our kernels, torch's, or another engine."""

import importlib.util
import logging
import shutil
import warnings
import weakref
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import mkdtemp

import torch
from torch import Tensor, nn

from compression.errors import CompressionError, UnsupportedTypeError
from compression.integer.native import library, lower_native
from compression.integer.onednn.model import has_integer_kernels, lower_onednn
from compression.integer.onnx.engines import (
    CompiledModel,
    Predict,
    compile_onnxruntime,
    compile_openvino,
)
from compression.integer.onnx.export import export_onnx
from compression.integer.triton import lower_triton
from compression.integer.verification import Keep, Verification, first_line
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
_KEEP: dict[str, Keep] = {
    "native": partial(lower_native, keep=True),
    "triton": partial(lower_triton, keep=True),
}
"""How an executor is lowered whose codes are to be looked at, where that is another way."""
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


def deploy(
    model: nn.Module, example: Tensor, *, executor: str | None = None, verify: bool = True
) -> nn.Module:
    """Return what predicts inputs shaped like `example` here: `model` on integer kernels.

    On the CPU "native" runs on C kernels that the machine's compiler builds once (AVX-512 with VNNI);
    "onednn" on torch's own; "openvino" and "onnxruntime" run the same scales and codes from its ONNX
    file and need their packages. On an NVIDIA GPU "triton" runs on kernels that Triton compiles for the
    batch of `example`. By default "triton" on a GPU, else the first of "native" and "onednn" that can,
    where oneDNN computes layers without a kernel in float32; a model that is not statically quantized,
    or a machine without any, gets `model` as it is. CompressionError for an executor that is unknown,
    is not there or cannot run the model, and for an example that the model cannot take.

    What is returned has predicted the example as the reference executor does (TOLERANCES of
    verification.py); an executor that does not is left out with a RuntimeWarning that names the layer,
    and the next one is returned, `model` at last. `verify=False` skips that.
    """
    if executor is not None and executor not in EXECUTORS:
        raise CompressionError(
            f"executor must be one of {', '.join(EXECUTORS)}, found {executor!r}"
        )
    if executor is None and not isinstance(model, StaticQuantizedModel):
        return model
    place = example.device.type if executor is None else device_of(executor)
    if not isinstance(model, StaticQuantizedModel) or example.device.type != place:
        raise UnsupportedTypeError(
            f"executor {executor} runs statically quantized networks on {place}, found "
            f"{type(model).__name__} on {example.device.type}; quantize_static makes one"
        )
    if executor is not None and (reason := lacking(executor)):
        raise CompressionError(reason)
    verification = Verification(model, example if verify else example[:1])
    left_out: list[str] = []
    for name in _candidates(executor, place):
        try:
            lowered, reason = _tried(name, model, example, verification if verify else None)
        except CompressionError as error:
            if name == executor:
                raise
            log.info("not on the %s executor: %s", name, error)
            continue
        if reason is None:
            break
        left_out.append(f"executor {name} {reason}")
    else:
        lowered, name = model, "reference"
    if left_out:
        message = f"{'; '.join(left_out)}: the {name} executor runs instead"
        warnings.warn(message, RuntimeWarning, stacklevel=2)
    return lowered


def _tried(
    executor: str, model: StaticQuantizedModel, example: Tensor, verification: Verification | None
) -> tuple[nn.Module, str | None]:
    """Return a network on an executor, and how it differs from the reference, None for not at all."""
    try:
        lowered = _lowered(executor, model, example)
    except CompressionError:
        raise
    except Exception as error:  # whatever a compiler raises
        return model, f"fails ({first_line(error)})"
    if verification is None:
        return lowered, None
    return lowered, verification.disagreement(lowered, executor, _KEEP.get(executor))


def _candidates(executor: str | None, place: str) -> tuple[str, ...]:
    """Return the executors to try, in turn: what follows an executor asked for is slower."""
    preferred = PREFERRED.get(place, ())
    if executor is None:
        return preferred
    after = preferred.index(executor) + 1 if executor in preferred else 0
    return executor, *preferred[after:]


def _lowered(executor: str, model: StaticQuantizedModel, example: Tensor) -> nn.Module:
    if reason := lacking(executor):
        raise CompressionError(reason)
    if executor in _LOWER:
        return _LOWER[executor](model, example)
    return _compiled(model, example, executor)


def _compiled(model: StaticQuantizedModel, example: Tensor, executor: str) -> nn.Module:
    folder = mkdtemp(prefix="compression-")
    path = Path(folder) / "model.onnx"
    compiler = partial(_COMPILERS[executor], path, num_threads=torch.get_num_threads())
    compiled = CompiledModel(
        compiler, engine=f"executor {executor}", inputs=torch.Size(example.shape[1:])
    )
    # The folder lives as long as the model: another shape reads the file again.
    weakref.finalize(compiled, shutil.rmtree, folder, ignore_errors=True)
    export_onnx(model, path, example)
    return compiled
