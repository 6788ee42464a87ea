"""The native executor: C kernels that this machine's compiler builds once."""

from compression.integer.native.embedding import EMBEDDING_KERNEL, native_embedding
from compression.integer.native.library import library, missing
from compression.integer.native.linear import DYNAMIC_KERNEL, WEIGHTS_KERNEL, native_linear
from compression.integer.native.model import KERNEL, NativeModel, lower_native
from compression.integer.native.recurrent import (
    RECURRENT_KERNEL,
    RECURRENT_WEIGHTS_KERNEL,
    native_recurrent,
)

__all__ = [
    "DYNAMIC_KERNEL",
    "EMBEDDING_KERNEL",
    "KERNEL",
    "RECURRENT_KERNEL",
    "RECURRENT_WEIGHTS_KERNEL",
    "WEIGHTS_KERNEL",
    "NativeModel",
    "library",
    "lower_native",
    "missing",
    "native_embedding",
    "native_linear",
    "native_recurrent",
]
