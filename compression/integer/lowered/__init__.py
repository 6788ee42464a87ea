"""The lowered network that the native and the Triton executor share: steps over values in memory."""

from compression.integer.lowered.geometry import Buffers, Geometry
from compression.integer.lowered.layout import Layout
from compression.integer.lowered.lowering import Kind, Lowering, Step, Target
from compression.integer.lowered.windows import Window

__all__ = ["Buffers", "Geometry", "Kind", "Layout", "Lowering", "Step", "Target", "Window"]
