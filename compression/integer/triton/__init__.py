"""The Triton executor: int8 tensor cores of an NVIDIA GPU, or Triton's interpreter on the CPU."""

from compression.integer.triton.launch import KERNEL
from compression.integer.triton.model import TritonModel, lower_triton, missing

__all__ = ["KERNEL", "TritonModel", "lower_triton", "missing"]
