"""The network as steps over values in memory, which the native and the Triton executor share."""

from compression.integer.steps.geometry import Buffers, Geometry
from compression.integer.steps.layout import Layout
from compression.integer.steps.lowering import Lowering
from compression.integer.steps.outputs import Outputs
from compression.integer.steps.step import (
    Attention,
    CodesStep,
    DepthwiseWeights,
    Gather,
    Interpolation,
    Lookup,
    Map,
    Maximum,
    Mean,
    Multiplication,
    Norm,
    Place,
    Product,
    Quantize,
    RealPlace,
    Residual,
    Step,
    Sum,
    Weights,
)
from compression.integer.steps.target import Target
from compression.integer.steps.windows import Window, depthwise_weights, is_depthwise

__all__ = [
    "Attention",
    "Buffers",
    "CodesStep",
    "DepthwiseWeights",
    "Gather",
    "Geometry",
    "Interpolation",
    "Layout",
    "Lookup",
    "Lowering",
    "Map",
    "Maximum",
    "Mean",
    "Multiplication",
    "Norm",
    "Outputs",
    "Place",
    "Product",
    "Quantize",
    "RealPlace",
    "Residual",
    "Step",
    "Sum",
    "Target",
    "Weights",
    "Window",
    "depthwise_weights",
    "is_depthwise",
]
