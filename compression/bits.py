"""Codes of 2 to 8 bits, indices of 1 to 8, masks and gaps <-> bytes.

The stream is little-endian in bits: element i of b bits takes the stream's bits i*b .. i*b + b - 1,
lowest first, and bit k of the stream is bit k % 8 of byte k // 8. The last byte ends in zero bits.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from compression.checks import check_dense, is_whole
from compression.errors import CompressionError, UnsupportedTypeError

Octets = NDArray[np.uint8]

FILLER = 255
"""In gaps: so many zeros, and no element after them yet."""


def pack_codes(codes: Tensor, num_bits: int) -> Tensor:
    """Return signed codes (int8, any shape) as ceil(numel * num_bits / 8) bytes (uint8, 1-dim)."""
    _check_bits(num_bits, 2)  # before a power of it is taken
    limit = 2 ** (num_bits - 1)
    return _pack(codes, torch.int8, num_bits, (-limit, limit - 1))


def unpack_codes(packed: Tensor, *, num_bits: int, numel: int) -> Tensor:
    """Return the `numel` signed codes (int8, 1-dim) in `packed`."""
    _check_bits(num_bits, 2)
    octets = _unpack(packed, num_bits, numel)
    if num_bits < 8:  # two's complement: the top bit is the sign
        sign = np.uint8(1 << (num_bits - 1))
        octets = (octets ^ sign) - sign
    return torch.from_numpy(octets.view(np.int8))


def pack_indices(indices: Tensor, num_bits: int) -> Tensor:
    """Return indices (uint8, any shape) as ceil(numel * num_bits / 8) bytes (uint8, 1-dim)."""
    _check_bits(num_bits, 1)
    return _pack(indices, torch.uint8, num_bits, (0, 2**num_bits - 1))


def unpack_indices(packed: Tensor, *, num_bits: int, numel: int) -> Tensor:
    """Return the `numel` indices (uint8, 1-dim) in `packed`."""
    _check_bits(num_bits, 1)
    return torch.from_numpy(_unpack(packed, num_bits, numel))


def pack_mask(mask: Tensor) -> Tensor:
    """Return a mask (bool, any shape) as ceil(numel / 8) bytes (uint8, 1-dim)."""
    _check_dtype(mask, torch.bool, "a mask")
    flat = mask.detach().cpu().contiguous().view(-1).numpy()
    return torch.from_numpy(np.packbits(flat, bitorder="little"))


def unpack_mask(packed: Tensor, *, numel: int) -> Tensor:
    """Return the mask (bool, 1-dim) of `numel` elements in `packed`."""
    return torch.from_numpy(_bits(packed, numel).view(np.bool_))


def pack_gaps(mask: Tensor) -> Tensor:
    """Return how many False stand before each True of a mask (bool, any shape), uint8, 1-dim.

    Each 255 stands for 255 of them alone: the gap goes on in the next byte. What follows the last
    True is not stored (relative indices: Han et al. 2016, arXiv:1510.00149, section 2).
    """
    _check_dtype(mask, torch.bool, "a mask")
    places = mask.detach().cpu().contiguous().view(-1).numpy().nonzero()[0]
    gaps = np.diff(places, prepend=-1) - 1
    fillers = gaps // FILLER
    packed = np.full(len(gaps) + int(fillers.sum()), FILLER, np.uint8)
    packed[np.cumsum(fillers + 1) - 1] = gaps % FILLER
    return torch.from_numpy(packed)


def unpack_gaps(packed: Tensor, *, numel: int) -> Tensor:
    """Return the mask (bool, 1-dim) of `numel` elements whose gaps are in `packed`."""
    _check_count(numel)
    _check_packed(packed)
    octets = packed.cpu().numpy()
    ends = octets != FILLER
    places = np.cumsum(octets.astype(np.int64) + ends)[ends] - 1
    if len(octets) and (not ends[-1] or places[-1] >= numel):
        last = places[-1] if ends[-1] else "an open gap"
        raise CompressionError(f"gaps must end within {numel} elements, found {last}")
    mask = torch.zeros(numel, dtype=torch.bool)
    mask[torch.from_numpy(places)] = True
    return mask


def _pack(elements: Tensor, dtype: torch.dtype, num_bits: int, limits: tuple[int, int]) -> Tensor:
    _check_dtype(elements, dtype, "codes" if dtype == torch.int8 else "indices")
    if elements.numel():
        low, high = (int(e) for e in elements.detach().aminmax())
        if low < limits[0] or high > limits[1]:
            raise CompressionError(
                f"{num_bits} bits hold {limits[0]}..{limits[1]}, found {low}..{high}"
            )
    octets = elements.detach().cpu().contiguous().view(-1).numpy().view(np.uint8)
    if num_bits == 8:
        return torch.from_numpy(octets.copy())
    # 8 elements are num_bits bytes: as one number, shifted together.
    padded = np.zeros(-(-len(octets) // 8) * 8, np.uint8)
    padded[: len(octets)] = octets & np.uint8((1 << num_bits) - 1)
    words = np.zeros(len(padded) // 8, np.uint64)
    for i, column in enumerate(padded.reshape(-1, 8).T):
        words |= column.astype(np.uint64) << np.uint64(i * num_bits)
    packed = words.astype("<u8").view(np.uint8).reshape(-1, 8)[:, :num_bits].reshape(-1)
    return torch.from_numpy(packed[: -(-len(octets) * num_bits // 8)].copy())


def _unpack(packed: Tensor, num_bits: int, numel: int) -> Octets:
    _check_count(numel)
    _check_tail(packed, numel * num_bits)
    if num_bits == 8:
        return packed.cpu().contiguous().numpy().copy()
    groups = -(-numel // 8)
    octets = np.zeros((groups, 8), np.uint8)
    padded = np.zeros(groups * num_bits, np.uint8)
    padded[: len(packed)] = packed.cpu().contiguous().numpy()
    octets[:, :num_bits] = padded.reshape(groups, num_bits)
    words = octets.reshape(-1).view("<u8")
    elements = np.empty((groups, 8), np.uint8)
    for i in range(8):
        elements[:, i] = (words >> np.uint64(i * num_bits)) & np.uint64((1 << num_bits) - 1)
    return elements.reshape(-1)[:numel]


def _bits(packed: Tensor, count: int) -> Octets:
    _check_count(count)
    _check_tail(packed, count)
    return np.unpackbits(packed.cpu().contiguous().numpy(), bitorder="little", count=count)


def _check_tail(packed: Tensor, count: int) -> None:
    """Refuse other than the bytes of `count` bits, zero bits after them."""
    _check_packed(packed, -(-count // 8))
    if count % 8 and int(packed[-1]) >> (count % 8):
        raise CompressionError(f"expected zero bits after the {count} packed ones, found others")


def _check_packed(packed: Tensor, expected: int | None = None) -> None:
    check_dense(packed, "packed bytes")
    if packed.dtype != torch.uint8 or packed.ndim != 1 or expected not in (None, len(packed)):
        raise CompressionError(
            f"expected {'' if expected is None else f'{expected} '}packed bytes, found "
            f"{packed.dtype} of shape {tuple(packed.shape)}"
        )


def _check_count(numel: int) -> None:
    if not is_whole(numel) or numel < 0:
        raise CompressionError(f"numel must be a whole number from 0, found {numel!r}")


def _check_dtype(elements: Tensor, dtype: torch.dtype, what: str) -> None:
    check_dense(elements, f"{what} to pack")
    if elements.dtype != dtype:
        name = str(dtype).removeprefix("torch.")
        raise UnsupportedTypeError(f"{what} to pack must be {name}, found {elements.dtype}")


def _check_bits(num_bits: int, fewest: int) -> None:
    if not is_whole(num_bits) or not fewest <= num_bits <= 8:
        raise CompressionError(f"num_bits must lie in {fewest}..8, found {num_bits!r}")
