"""Quantized networks: dynamic and static INT8, weights of 2 to 8 bits, float16 and bfloat16."""

from compression.quantization.cast import CastModel, cast, round_vectors
from compression.quantization.coded import (
    CodedRecurrent,
    CodedWeight,
    WeightQuantizedEmbedding,
    WeightQuantizedRecurrent,
)
from compression.quantization.dynamic import DynamicQuantizedLinear, quantize_dynamic
from compression.quantization.products import DynamicWeight
from compression.quantization.qat import quantize_aware
from compression.quantization.recurrent import DynamicQuantizedRecurrent
from compression.quantization.static import StaticQuantizedModel, quantize_static
from compression.quantization.weights import WeightQuantizedLayer, quantize_weights

__all__ = [
    "CastModel",
    "CodedRecurrent",
    "CodedWeight",
    "DynamicQuantizedLinear",
    "DynamicQuantizedRecurrent",
    "DynamicWeight",
    "StaticQuantizedModel",
    "WeightQuantizedEmbedding",
    "WeightQuantizedLayer",
    "WeightQuantizedRecurrent",
    "cast",
    "quantize_aware",
    "quantize_dynamic",
    "quantize_static",
    "quantize_weights",
    "round_vectors",
]
