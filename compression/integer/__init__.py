"""Integer execution: a statically quantized network on INT8 kernels, or as an ONNX file."""

from compression.integer.agreement import code_differences
from compression.integer.batch_axis import images_first
from compression.integer.deployment import deploy, try_executor
from compression.integer.executors import EXECUTORS, Executor, device_of, lacking, preferred
from compression.integer.native import NativeModel, lower_native
from compression.integer.onednn import IntegerModel, has_integer_kernels, lower_onednn
from compression.integer.onnx import export_onnx
from compression.integer.triton import TritonModel, lower_triton

__all__ = [
    "EXECUTORS",
    "Executor",
    "IntegerModel",
    "NativeModel",
    "TritonModel",
    "code_differences",
    "deploy",
    "device_of",
    "export_onnx",
    "has_integer_kernels",
    "images_first",
    "lacking",
    "lower_native",
    "lower_onednn",
    "lower_triton",
    "preferred",
    "try_executor",
]
