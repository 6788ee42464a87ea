"""The device's code: int8 codes (NHWC, with a border) in, int8 codes out.

A kernel writes `rows` = images x pixels rows of channels; offsets are those of a pixel in its image,
strides those from image to image, in elements. Every number is rounded as the reference executor
rounds it: launch with enable_fp_fusion=False, since a fused multiply-add would round once, not twice.
"""

from .rows import int8_attention, int8_norm
from .sums import int8_sum
from .windows import int8_convolution, int8_pointwise, int8_quantize

__all__ = [
    "int8_attention",
    "int8_convolution",
    "int8_norm",
    "int8_pointwise",
    "int8_quantize",
    "int8_sum",
]
