"""How each engine makes its file of one checkpoint, and predicts from that file.

Every engine gets the same network, calibration images, threads and batch, and its best settings for
them. ONNX Runtime has no bfloat16 convolution on a CPU, and therefore no such row.
"""

import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from compression.integer import EXECUTORS, deploy
from compression.integer.onnx.engines import (
    CompiledModel,
    Predict,
    compile_onnxruntime,
    compile_openvino,
)
from compression.quantization import StaticQuantizedModel, cast, quantize_static
from compression.storage import load, save

CALIBRATION_BATCH = 10
"""At 224x224 its activations stay below what the allocator maps anew each time (32 MiB)."""


@dataclass(frozen=True, slots=True)
class Setting:
    """What an engine predicts: inputs (N, C, H, W), by a network made by `factory`."""

    example: Tensor
    factory: Callable[[], nn.Module]


@dataclass(frozen=True, slots=True)
class Engine:
    """An engine: `build` writes its file from the trained network, `start` returns its prediction.

    `build` takes the network in eval mode, calibration inputs (N, C, H, W) and the file's path;
    `packages` must be importable, `programs` be found by the shell, and our `executor` run here.
    """

    name: str
    suffix: str
    build: Callable[[nn.Module, Tensor, Path], None]
    start: Callable[[Path, Setting], Predict]
    packages: tuple[str, ...] = ()
    programs: tuple[str, ...] = ()
    executor: str | None = None

    def __str__(self) -> str:
        """Return the name, which is the test's id."""
        return self.name


def _save(
    model: nn.Module, calibration: Tensor, path: Path, *, how: Callable[[nn.Module, Tensor], Any]
) -> None:
    save(how(model, calibration), path)


def _int8(model: nn.Module, calibration: Tensor, **options: Any) -> StaticQuantizedModel:
    batches = list(calibration.split(CALIBRATION_BATCH))
    return quantize_static(model, batches, precision="bfloat16", **options)


def _torch(path: Path, setting: Setting) -> Predict:
    clips = setting.example.ndim == 5
    fastest = torch.channels_last_3d if clips else torch.channels_last
    return load(path, setting.factory).to(memory_format=fastest)


def _executor(path: Path, setting: Setting, *, executor: str | None) -> Predict:
    with warnings.catch_warnings():  # no row is measured on another executor than its own
        warnings.simplefilter("error", RuntimeWarning)
        return deploy(load(path, setting.factory), setting.example, executor=executor)


def _onnx_float(model: nn.Module, calibration: Tensor, path: Path) -> None:
    torch.onnx.export(
        model, (calibration[:2],), str(path), dynamo=True, external_data=False, verbose=False,
        dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=1024)},),
        input_names=["input"],
    )  # fmt: skip


def _onnxruntime_int8(model: nn.Module, calibration: Tensor, path: Path) -> None:
    from onnxruntime import quantization as ort
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(ort.CalibrationDataReader):  # type: ignore[misc]
        left = iter(calibration.split(CALIBRATION_BATCH))

        def get_next(self) -> dict[str, Any] | None:
            batch = next(self.left, None)
            return None if batch is None else {"input": batch.numpy()}

    plain, prepared = path.with_name("float.onnx"), path.with_name("prepared.onnx")
    _onnx_float(model, calibration, plain)
    quant_pre_process(str(plain), str(prepared), skip_symbolic_shape=True)
    ort.quantize_static(
        str(prepared), str(path), Reader(), quant_format=ort.QuantFormat.QDQ, per_channel=True,
        activation_type=ort.QuantType.QUInt8, weight_type=ort.QuantType.QInt8,
    )  # fmt: skip


def _openvino(model: nn.Module, calibration: Tensor, path: Path, *, quantized: bool) -> None:
    import openvino

    converted = openvino.convert_model(model, example_input=calibration[:1])
    converted.reshape([-1, *calibration.shape[1:]])
    if quantized:
        import nncf

        images = nncf.Dataset([image.numpy() for image in calibration.split(1)])
        converted = nncf.quantize(converted, images, subset_size=len(calibration))
    openvino.save_model(converted, str(path), compress_to_fp16=False)


def _exported(model: nn.Module, calibration: Tensor) -> torch.export.ExportedProgram:
    # Without strict it takes several calls of one nn.ReLU for one, and the quantizer refuses them.
    return torch.export.export(
        model, (calibration[:2],), strict=True,
        dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=1024)},),
    )  # fmt: skip


def _torchao_int8(model: nn.Module, calibration: Tensor, path: Path) -> None:
    from torchao.quantization.pt2e import quantize_pt2e as pt2e
    from torchao.quantization.pt2e.quantizer import x86_inductor_quantizer as x86

    quantizer = x86.X86InductorQuantizer()
    quantizer.set_global(x86.get_default_x86_inductor_quantization_config())
    prepared = pt2e.prepare_pt2e(_exported(model, calibration).module(), quantizer)
    for batch in calibration.split(CALIBRATION_BATCH):
        prepared(batch)
    converted = pt2e.convert_pt2e(prepared)
    # It leaves the float weights beside their codes: the file would be five times as large.
    used = {node.target for node in converted.graph.nodes if node.op == "get_attr"}
    for name in [name for name, _ in converted.named_parameters() if name not in used]:
        owner, _, leaf = name.rpartition(".")
        delattr(converted.get_submodule(owner), leaf)
    program = _exported(converted, calibration)
    program.example_inputs = None  # or the file holds the images too
    torch.export.save(program, path)


def _compile_torchao(path: Path, shape: torch.Size) -> Predict:
    # Registers the passes that make integer kernels of what the file holds.
    import torchao.quantization.pt2e.quantizer.x86_inductor_quantizer  # noqa: F401

    # Ahead of time, without Python between the kernels: faster than torch.compile at batch 1.
    # It trusts the strides of its example: inputs must be contiguous, as this one is.
    with torch.inference_mode(False), torch.no_grad(), TemporaryDirectory() as folder:
        program = torch.export.export(torch.export.load(path).module(), (torch.zeros(shape),))
        package = torch._inductor.aoti_compile_and_package(
            program,
            package_path=str(Path(folder) / "model.pt2"),
            inductor_configs={"freezing": True},
        )
        compiled = torch._inductor.aoti_load_package(package)
    return lambda inputs: compiled(inputs.contiguous())


def _torchao(path: Path, setting: Setting) -> Predict:
    del setting
    return CompiledModel(partial(_compile_torchao, path))


def _compiled(path: Path, setting: Setting, *, by: Callable[..., Predict]) -> Predict:
    del setting
    return CompiledModel(lambda shape: by(path, shape, num_threads=torch.get_num_threads()))


_OPENVINO = partial(_compiled, by=compile_openvino)
_BFLOAT16 = partial(_compiled, by=partial(compile_openvino, precision="bf16"))
_ONNXRUNTIME = partial(_compiled, by=compile_onnxruntime)

OURS = tuple(
    Engine(
        f"compression-int8-{name}",
        ".safetensors",
        partial(_save, how=_int8),
        partial(_executor, executor=name),
        executor.packages,
        executor=name,
    )
    for name, executor in EXECUTORS.items()
    if executor.device == "cpu"
)
PEERS = (
    Engine("torch-float32", ".safetensors", partial(_save, how=lambda m, _: m), _torch),
    Engine(
        "torch-bfloat16",
        ".safetensors",
        partial(_save, how=lambda m, _: cast(m, torch.bfloat16)),
        _torch,
    ),
    Engine(
        "openvino-float32", ".xml", partial(_openvino, quantized=False), _OPENVINO, ("openvino",)
    ),
    Engine(
        "openvino-bfloat16", ".xml", partial(_openvino, quantized=False), _BFLOAT16, ("openvino",)
    ),
    Engine(
        "openvino-int8-nncf",
        ".xml",
        partial(_openvino, quantized=True),
        _OPENVINO,
        ("openvino", "nncf"),
    ),
    Engine(
        "onnxruntime-float32", ".onnx", _onnx_float, _ONNXRUNTIME, ("onnxruntime", "onnxscript")
    ),
    Engine(
        "onnxruntime-int8", ".onnx", _onnxruntime_int8, _ONNXRUNTIME, ("onnxruntime", "onnxscript")
    ),
    Engine(
        "torchao-int8",
        ".pt2",
        _torchao_int8,
        _torchao,
        ("torchao",),
        (os.environ.get("CXX", "g++"),),
    ),
)
ENGINES = (*PEERS, *OURS)
BASELINE = PEERS[0]
DEPLOYED = Engine(
    "compression-int8",
    ".safetensors",
    partial(_save, how=partial(_int8, fallback=True, rounding="gptq")),
    partial(_executor, executor=None),
)
"""What a user gets who names no executor, and leaves in float what has no integer arithmetic.

Weights are rounded by GPTQ; NNCF corrects biases instead, unasked.
"""
BY_NAME = {engine.name: engine for engine in (*ENGINES, DEPLOYED)}
