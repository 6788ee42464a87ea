"""ONNX: the file of a quantized network, and the engines that run one."""

from compression.integer.onnx.engines import CompiledModel
from compression.integer.onnx.export import export_onnx

__all__ = ["CompiledModel", "export_onnx"]
