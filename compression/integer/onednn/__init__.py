"""The oneDNN executor: torch's own integer kernels of the CPU."""

from compression.integer.onednn.model import IntegerModel, has_integer_kernels, lower_onednn

__all__ = ["IntegerModel", "has_integer_kernels", "lower_onednn"]
