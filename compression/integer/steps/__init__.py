"""The lowered network that the native and the Triton executor share: steps over values in memory."""

from compression.integer.steps.geometry import Buffers, Geometry
from compression.integer.steps.layout import Layout
from compression.integer.steps.lowering import Kind, Lowering, Step, Target
from compression.integer.steps.windows import Window

__all__ = ["Buffers", "Geometry", "Kind", "Layout", "Lowering", "Step", "Target", "Window"]
