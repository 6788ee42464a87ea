"""Numbers of any width <-> bytes at the entropy of each of their bytes.

A part for each byte of the width, lowest byte first: 4 bytes of length, little-endian, then as many
bytes. They are that byte of every number where the length is the count of the numbers, and else a
block of entropy.py of one row and one column.
"""

import numpy as np
import torch
from torch import Tensor

from compression.errors import CheckpointError
from compression.storage.container import octets
from compression.storage.entropy import Symbols, decode_symbols, encode_symbols

_LENGTH_BYTES = 4
_GLANCE = 2**16
_HOPELESS_BITS = 7.5  # of entropy: mantissas save little and take as long as exponents to decode


def encode_numbers(flat: Tensor) -> bytes:
    """Return the bytes of numbers (1-dim, on the CPU)."""
    count, width = flat.numel(), flat.element_size()
    planes = np.frombuffer(octets(flat.contiguous()), np.uint8).reshape(count, width)
    parts = []
    for i in range(width):
        block = _encode(np.ascontiguousarray(planes[:, i]))
        parts += [len(block).to_bytes(_LENGTH_BYTES, "little"), block]
    return b"".join(parts)


def decode_numbers(data: bytes, count: int, dtype: torch.dtype) -> Tensor:
    """Return the `count` numbers (1-dim) in `data`; CheckpointError where it holds others."""
    planes = np.empty((count, dtype.itemsize), np.uint8)
    end = 0
    for i in range(dtype.itemsize):
        begin = end + _LENGTH_BYTES
        end = begin + int.from_bytes(data[begin - _LENGTH_BYTES : begin], "little")
        if end > len(data):
            raise CheckpointError(f"coded numbers of {len(data)} bytes end before byte {end}")
        planes[:, i] = _decode(data[begin:end], count)
    if end != len(data):
        raise CheckpointError(f"{len(data) - end} bytes after the coded numbers")
    return torch.from_numpy(planes.reshape(-1)).view(dtype)


def _encode(plane: Symbols) -> bytes:
    counts = np.bincount(plane[:_GLANCE], minlength=256)
    shares = counts[counts > 0] / max(counts.sum(), 1)
    if -(shares * np.log2(shares)).sum() > _HOPELESS_BITS:
        return plane.tobytes()
    block = encode_symbols(plane.reshape(1, 1, -1))
    return block if len(block) < len(plane) else plane.tobytes()


def _decode(block: bytes, count: int) -> Symbols:
    if len(block) == count:
        return np.frombuffer(block, np.uint8)
    return decode_symbols(block, (1, 1, count)).reshape(-1)
