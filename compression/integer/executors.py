"""The executors of a statically quantized network: our kernels, torch's, or another engine.

An executor is one folder beside this file and one row here; README.md says how to add one.
"""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from torch import Tensor, nn

from compression.integer import native, onednn, onnx, triton
from compression.quantization import StaticQuantizedModel

Lower = Callable[[StaticQuantizedModel, Tensor], nn.Module]
"""A network and an example -> what predicts inputs shaped like the example's, in any number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Executor:
    """What deploy, its verification, the benchmarks and the tests know of an executor."""

    name: str
    about: str
    """What it runs on, in a few words, for the table in README.md."""
    device: str
    """The kind of device that it runs on: "cpu" or "cuda"."""
    lower: Lower
    """UnsupportedTypeError names a layer that it cannot run."""
    tolerance: tuple[float, str]
    """A bound on the relative L2 error of the outputs, and its reason. 0: no code may differ. Else a
    code may differ by 1 (a tie), and one code of what the outputs are made of comes on top."""
    packages: tuple[str, ...] = ()
    """What it needs beside torch, as pip and as import name it."""
    missing: Callable[[], str | None] = lambda: None
    """Says what else it lacks on this machine, None where it can run; asked where its packages are."""
    keep: Lower | None = None
    """Lowers to the form whose codes can be looked at (agreement.Comparable), where it is another."""
    layer_by_layer: bool = False
    """Its codes are those of each layer alone, on the reference's codes: deploy compares them all."""
    kernels: tuple[str, ...] = ()
    """Kernels that must be seen to run, all of them, where a latency is claimed for it."""
    preferred: bool = False
    """Whether deploy takes it without being asked, the first in the order of the rows."""


_EXACT = (0.0, "the same integers, and the same operations on floats in the same order")
_TIES = (0.1, "a tie rounds to either side, and moves codes of the layers after it")
_RECIPROCAL = (0.1, "it multiplies by a reciprocal scale, which moves more ties")
_ROWS = (
    Executor(
        name="native", device="cpu", preferred=True,
        about="C kernels that the machine's compiler builds once: AVX2, VNNI, AMX; ARM's dot products",
        missing=native.missing, lower=native.lower_native, tolerance=_EXACT,
        keep=partial(native.lower_native, keep=True), kernels=(native.KERNEL,),
    ),
    Executor(
        name="onednn", device="cpu", preferred=True,
        about="torch's own kernels, for VNNI or AMX; layers without one in float32",
        missing=onednn.missing, lower=partial(onednn.lower_onednn, fallback=True), tolerance=_TIES,
        layer_by_layer=True, kernels=onednn.KERNELS,
    ),
    Executor(
        name="openvino", device="cpu", packages=("openvino", "onnx"),
        about="OpenVINO, from the network's ONNX file",
        lower=onnx.lower_openvino, tolerance=_RECIPROCAL,
    ),
    Executor(
        name="onnxruntime", device="cpu", packages=("onnxruntime", "onnx"),
        about="ONNX Runtime, from the network's ONNX file",
        lower=onnx.lower_onnxruntime, tolerance=_TIES,
    ),
    Executor(
        name="triton", device="cuda", preferred=True, packages=("triton",),
        about="kernels that Triton compiles for the example's batch, on int8 tensor cores",
        missing=triton.missing, lower=triton.lower_triton, tolerance=_EXACT,
        keep=partial(triton.lower_triton, keep=True), kernels=(triton.KERNEL,),
    ),
)  # fmt: skip
EXECUTORS: dict[str, Executor] = {row.name: row for row in _ROWS}
"""The executors by name, on each device the fastest first."""


def lacking(executor: str) -> str | None:
    """Say what an executor lacks on this machine, None where it can run."""
    row = EXECUTORS[executor]
    absent = [p for p in row.packages if importlib.util.find_spec(p) is None]
    if absent:
        return f"executor {executor} needs {', '.join(absent)}: pip install {' '.join(absent)}"
    return row.missing()


def device_of(executor: str) -> str:
    """Return the kind of device that an executor runs on."""
    return EXECUTORS[executor].device


def preferred(device: str) -> tuple[str, ...]:
    """Return the executors that deploy takes unasked on a kind of device, the fastest first."""
    return tuple(e.name for e in EXECUTORS.values() if e.preferred and e.device == device)
