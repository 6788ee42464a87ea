"""A tensor of few different values <-> a codebook and indices into it."""

import torch
from torch import Tensor

from compression.errors import CheckpointError

MAX_VALUES = 256
_GLANCE = 2_048
_LOOK = 65_536
_CHUNK = 2**18


def codebook_of(bits: Tensor) -> tuple[Tensor, Tensor] | None:
    """Return the different values of `bits` (1-dim integers), ascending, and their indices (uint8).

    None where there are more than 256, which a glance at the first of them mostly tells.
    """
    found = bits[:_GLANCE].unique()
    if len(found) > MAX_VALUES:
        return None
    found = bits[:_LOOK].unique()
    while len(found) <= MAX_VALUES:
        indices = torch.searchsorted(found, bits, out_int32=True).clamp_(max=len(found) - 1)
        missing = bits[found[indices] != bits]
        if not len(missing):
            return found, indices.to(torch.uint8)
        found = torch.cat([found, missing[:_LOOK].unique()]).unique()
    return None


def look_up(codebook: Tensor, indices: Tensor) -> Tensor:
    """Return the codebook's values at `indices` (uint8); CheckpointError for one outside."""
    largest = int(indices.max()) if len(indices) else -1
    if largest >= len(codebook):
        raise CheckpointError(f"an index of {largest} outside a codebook of {len(codebook)} values")
    values = torch.empty(len(indices), dtype=codebook.dtype)
    for part in range(0, len(indices), _CHUNK):  # a wide copy of all indices would be large
        chunk = slice(part, part + _CHUNK)
        torch.index_select(codebook, 0, indices[chunk].int(), out=values[chunk])
    return values
