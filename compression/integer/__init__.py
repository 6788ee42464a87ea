"""Executors that run a statically quantized network on integer kernels."""

from compression.integer.onednn import IntegerModel, lower_onednn

__all__ = ["IntegerModel", "lower_onednn"]
