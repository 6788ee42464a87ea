"""The native executor: C kernels that this machine's compiler builds once."""

from compression.integer.native.library import library
from compression.integer.native.model import NativeModel, lower_native

__all__ = ["NativeModel", "library", "lower_native"]
