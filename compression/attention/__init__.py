"""Attention of any number of heads, in plain linear layers."""

from compression.attention.function import added_mask, attend
from compression.attention.layer import PROJECTIONS, Attention, check_heads, is_projection

__all__ = ["PROJECTIONS", "Attention", "added_mask", "attend", "check_heads", "is_projection"]
