"""The oneDNN executor: torch's own integer kernels of the CPU."""

from compression.integer.onednn.model import (
    KERNELS,
    IntegerModel,
    has_integer_kernels,
    lower_onednn,
    missing,
)

__all__ = ["KERNELS", "IntegerModel", "has_integer_kernels", "lower_onednn", "missing"]
