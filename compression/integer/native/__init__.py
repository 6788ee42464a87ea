"""The native executor: C kernels that this machine's compiler builds once."""

from compression.integer.native.library import has_native
from compression.integer.native.model import NativeModel, lower_native

__all__ = ["NativeModel", "has_native", "lower_native"]
