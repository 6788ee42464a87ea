"""Integer execution: a statically quantized network on the CPU's INT8 kernels, or as an ONNX file."""

from compression.integer.onednn import IntegerModel, deploy, has_integer_kernels, lower_onednn
from compression.integer.onnx_file import export_onnx

__all__ = ["IntegerModel", "deploy", "export_onnx", "has_integer_kernels", "lower_onednn"]
