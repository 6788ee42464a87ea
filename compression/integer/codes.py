"""Codes as integer kernels read them: uint8, the network's int8 codes plus 128."""

import torch
from torch import Tensor

from compression.affine import INT8_MAX, INT8_MIN

OFFSET = -INT8_MIN
"""What is added to a code of the network: most kernels multiply u8 by s8."""
LARGEST = INT8_MAX + OFFSET
"""The largest unsigned code."""
INT32_LIMIT = 2**31
"""The magnitude that sums of products must stay below."""


def unsigned_zero(zero_point: Tensor | None) -> int:
    """Return the kernels' zero point of the network's; 0 for none."""
    return 0 if zero_point is None else int(zero_point) + OFFSET


def unsigned(codes: Tensor) -> Tensor:
    """Return the kernels' codes (uint8) of the network's (int8)."""
    return (codes.short() + OFFSET).to(torch.uint8)


def signed(codes: Tensor) -> Tensor:
    """Return the network's codes (int8) of the kernels' (uint8)."""
    return (codes.short() - OFFSET).to(torch.int8)
