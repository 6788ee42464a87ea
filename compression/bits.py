"""Codes of 2 to 8 bits and masks <-> bytes.

The stream is little-endian in bits: element i of b bits takes the stream's bits i*b .. i*b + b - 1,
lowest first, and bit k of the stream is bit k % 8 of byte k // 8. The last byte ends in zero bits.
"""

import numpy as np
import torch
from torch import Tensor

from compression.errors import CompressionError, UnsupportedTypeError


def pack_codes(codes: Tensor, num_bits: int) -> Tensor:
    """Return signed codes (int8, any shape) as ceil(numel * num_bits / 8) bytes (uint8, 1-dim)."""
    _check_bits(num_bits)
    if codes.dtype != torch.int8:
        raise UnsupportedTypeError(f"codes to pack must be int8, found {codes.dtype}")
    limit = 2 ** (num_bits - 1)
    if codes.numel() and (int(codes.min()) < -limit or int(codes.max()) >= limit):
        raise CompressionError(
            f"codes must lie in {-limit}..{limit - 1} for {num_bits} bits, found "
            f"{int(codes.min())}..{int(codes.max())}"
        )
    octets = codes.detach().cpu().contiguous().view(-1).numpy().view(np.uint8)
    bits = np.unpackbits(octets[:, None], axis=1, count=num_bits, bitorder="little")
    return torch.from_numpy(np.packbits(bits.reshape(-1), bitorder="little"))


def unpack_codes(packed: Tensor, *, num_bits: int, numel: int) -> Tensor:
    """Return the `numel` signed codes (int8, 1-dim) in `packed`."""
    _check_bits(num_bits)
    bits = _bits(packed, numel * num_bits).reshape(-1, num_bits)
    sign = np.repeat(bits[:, -1:], 8 - num_bits, axis=1)  # two's complement: repeat the top bit
    octets = np.packbits(np.concatenate([bits, sign], axis=1), axis=1, bitorder="little")
    return torch.from_numpy(octets.reshape(-1).view(np.int8))


def pack_mask(mask: Tensor) -> Tensor:
    """Return a mask (bool, any shape) as ceil(numel / 8) bytes (uint8, 1-dim)."""
    if mask.dtype != torch.bool:
        raise UnsupportedTypeError(f"a mask to pack must be bool, found {mask.dtype}")
    flat = mask.detach().cpu().contiguous().view(-1).numpy()
    return torch.from_numpy(np.packbits(flat, bitorder="little"))


def unpack_mask(packed: Tensor, *, numel: int) -> Tensor:
    """Return the mask (bool, 1-dim) of `numel` elements in `packed`."""
    return torch.from_numpy(_bits(packed, numel).astype(np.bool_))


def _bits(packed: Tensor, count: int) -> "np.ndarray[tuple[int], np.dtype[np.uint8]]":
    expected = -(-count // 8)
    if packed.dtype != torch.uint8 or packed.ndim != 1 or len(packed) != expected:
        raise CompressionError(
            f"expected {expected} packed bytes, found {packed.dtype} of shape {tuple(packed.shape)}"
        )
    bits = np.unpackbits(packed.cpu().contiguous().numpy(), bitorder="little")
    if bits[count:].any():
        raise CompressionError(f"expected zero bits behind the {count} packed ones, found others")
    return bits[:count]


def _check_bits(num_bits: int) -> None:
    if not 2 <= num_bits <= 8:
        raise CompressionError(f"num_bits must lie in 2..8, found {num_bits!r}")
