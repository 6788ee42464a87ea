"""ONNX: the file of a quantized network, and the engines that run one."""

from compression.integer.onnx.engines import CompiledModel
from compression.integer.onnx.export import export_onnx
from compression.integer.onnx.lowering import lower_onnxruntime, lower_openvino

__all__ = ["CompiledModel", "export_onnx", "lower_onnxruntime", "lower_openvino"]
