"""Which encoding of a tensor is the smallest."""

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from compression.bits import pack_gaps
from compression.storage.codebook import codebook_of
from compression.storage.streams import index_bits

Index = Literal["mask", "gaps"] | None
Values = Literal["dense", "packed", "clustered"]
Sizes = dict[tuple[Index, Values], int]
_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


DESCRIPTION_BYTES = 160
"""What another than the plain encoding takes in the header, about."""


class Plan(NamedTuple):
    """What tells `where` the values stand (None: everywhere), and how they are stored.

    `shared` holds the codebook and the indices of all values, where they are few.
    """

    where: Index
    values: Values
    num_bits: int
    present: Tensor
    shared: tuple[Tensor, Tensor] | None


def bit_patterns(tensor: Tensor) -> Tensor:
    """Return a tensor's elements, 1-dim, as integers of the same width."""
    return tensor.resolve_neg().contiguous().view(-1).view(_INTEGERS[tensor.element_size()])


def choose(flat: Tensor, num_bits: int | None, *, entropy_coded: bool) -> Plan:
    """Return the smallest encoding of `flat` (1-dim), the plainest one on a tie.

    `num_bits` says that it holds integer codes of so many bits.
    """
    bits = bit_patterns(flat)
    present = bits != 0  # by bit pattern: -0.0 is a value to keep
    if entropy_coded and num_bits is None and flat.dtype == torch.int8:
        num_bits = 8
    shared = codebook_of(bits) if flat.is_floating_point() else None
    sizes = _sizes(flat, present, num_bits, shared, gaps=not entropy_coded)
    keys = _codable(sizes) if entropy_coded else list(sizes)
    index, values = min(keys, key=lambda key: sizes[key])
    return Plan(index, values, num_bits or 8, present, shared)


def without_zero(codebook: Tensor, indices: Tensor) -> tuple[Tensor, Tensor]:
    """Return a codebook (bit patterns) without its zero, and the indices of the other values."""
    zero = (codebook == 0).nonzero().view(-1)
    if not len(zero):
        return codebook, indices
    left = indices[indices != zero]
    return codebook[codebook != 0], left - (left > zero).to(torch.uint8)


def _codable(sizes: Sizes) -> list[tuple[Index, Values]]:
    """Return what to choose from: a coder finds zeros among symbols without an index."""
    if (None, "packed") in sizes:
        return [(None, "packed")]
    plain = sizes[None, "dense"]
    if sizes.get((None, "clustered"), plain) < plain:
        return [(None, "clustered")]
    return [key for key in sizes if key in ((None, "dense"), ("mask", "dense"))]


def _sizes(
    flat: Tensor,
    present: Tensor,
    num_bits: int | None,
    shared: tuple[Tensor, Tensor] | None,
    *,
    gaps: bool,
) -> Sizes:
    """Return the bytes of each encoding, entropy coding apart, the plainest first."""
    width, numel, left = flat.element_size(), flat.numel(), int(present.sum())
    indexes: dict[Index, int] = {None: 0}
    if left < numel:
        indexes["mask"] = -(-numel // 8)
        if gaps and left < indexes["mask"]:
            indexes["gaps"] = len(pack_gaps(present))
    sizes: Sizes = {}
    for index, index_bytes in indexes.items():
        count = numel if index is None else left
        sizes[index, "dense"] = index_bytes + count * width
        if num_bits is not None:
            sizes[index, "packed"] = index_bytes + -(-count * num_bits // 8)
        if shared is not None:
            values = len(shared[0]) - (index is not None)
            sizes[index, "clustered"] = (
                index_bytes + -(-count * index_bits(values) // 8) + values * width
            )
    plain = (None, "dense")
    return {key: size + DESCRIPTION_BYTES * (key != plain) for key, size in sizes.items()}
