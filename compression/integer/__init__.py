"""Integer execution: a statically quantized network on the CPU's INT8 kernels, or as an ONNX file."""

from compression.integer.agreement import code_differences
from compression.integer.deployment import EXECUTORS, deploy, lacking
from compression.integer.native import NativeModel, lower_native
from compression.integer.onednn import IntegerModel, has_integer_kernels, lower_onednn
from compression.integer.onnx_file import export_onnx

__all__ = [
    "EXECUTORS",
    "IntegerModel",
    "NativeModel",
    "code_differences",
    "deploy",
    "export_onnx",
    "has_integer_kernels",
    "lacking",
    "lower_native",
    "lower_onednn",
]
