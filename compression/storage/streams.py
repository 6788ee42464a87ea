"""The streams of one tensor <-> entries NAME#STREAM of the file, raw or entropy-coded."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from compression.bits import (
    pack_codes,
    pack_gaps,
    pack_indices,
    pack_mask,
    unpack_codes,
    unpack_gaps,
    unpack_indices,
    unpack_mask,
)
from compression.errors import CheckpointError
from compression.storage.codebook import MAX_VALUES
from compression.storage.container import Entries
from compression.storage.entropy import decode_symbols, encode_symbols
from compression.storage.planes import decode_numbers, encode_numbers

Shape = list[int]
CODED_BYTES = 64
"""What it takes in the header to say that a stream is coded, about."""
_CODED_AS = {"dense": "values", "packed": "codes", "clustered": "indices"}
_OFFSET = 128  # signed codes -> symbols in their order


@dataclass(slots=True)
class Writer:
    """Adds the streams of the tensor `name` to `entries`; `coded` names those that are smaller so.

    Symbols are 1-dim; `shape` is that of the tensor they are all the elements of, else empty.
    """

    name: str
    entropy_coded: bool
    entries: Entries = field(default_factory=dict)
    coded: list[str] = field(default_factory=list)

    def mask(self, present: Tensor) -> None:
        """Add a mask (bool); its symbols are its bytes."""
        packed = pack_mask(present)
        self._symbols("mask", lambda: packed, 8, packed, [])

    def gaps(self, present: Tensor) -> None:
        """Add the gaps of a mask (bool), never coded: the mask then is as small."""
        self.entries[f"{self.name}#gaps"] = pack_gaps(present)

    def codes(self, codes: Tensor, num_bits: int, shape: Shape) -> None:
        """Add signed codes (int8)."""
        symbols = codes.view(torch.uint8) ^ _OFFSET
        self._symbols("codes", lambda: pack_codes(codes, num_bits), num_bits, symbols, shape)

    def indices(self, indices: Tensor, values: int, shape: Shape) -> None:
        """Add indices (uint8) into so many values."""
        bits = index_bits(values)
        self._symbols("indices", lambda: pack_indices(indices, bits), bits, indices, shape)

    def values(self, flat: Tensor) -> None:
        """Add numbers (1-dim)."""
        if self.entropy_coded and self._keep("values", encode_numbers(flat), flat.nbytes):
            return
        self.entries[f"{self.name}#values"] = flat

    def codebook(self, codebook: Tensor) -> None:
        """Add a codebook (1-dim), never coded."""
        self.entries[f"{self.name}#codebook"] = codebook

    def _symbols(
        self,
        stream: str,
        pack: Callable[[], Tensor],
        bits: int,
        symbols: Tensor,
        shape: Shape,
    ) -> None:
        if self.entropy_coded:
            coded = encode_symbols(symbols.numpy().reshape(_grid(shape, len(symbols))))
            if self._keep(stream, coded, -(-len(symbols) * bits // 8)):
                return
        self.entries[f"{self.name}#{stream}"] = pack()

    def _keep(self, stream: str, coded: bytes, raw_bytes: int) -> bool:
        if len(coded) + CODED_BYTES >= raw_bytes:
            return False
        self.coded.append(stream)
        self.entries[f"{self.name}#{stream}"] = torch.frombuffer(
            bytearray(coded), dtype=torch.uint8
        )
        return True


@dataclass(slots=True)
class Reader:
    """Takes the streams of the tensor `name` out of `entries`; CheckpointError where they differ."""

    name: str
    entries: Entries
    coded: list[str]

    def mask(self, count: int) -> Tensor:
        """Return a mask (bool, 1-dim)."""
        packed = self._take("mask")
        if "mask" in self.coded:
            packed = _decode(packed, -(-count // 8), [])
        return unpack_mask(packed, numel=count)

    def gaps(self, count: int) -> Tensor:
        """Return the mask (bool, 1-dim) that gaps stand for."""
        return unpack_gaps(self._take("gaps"), numel=count)

    def codes(self, num_bits: int, count: int, shape: Shape) -> Tensor:
        """Return signed codes (int8, 1-dim)."""
        stream = self._take("codes")
        if "codes" not in self.coded:
            return unpack_codes(stream, num_bits=num_bits, numel=count)
        codes = (_decode(stream, count, shape) ^ _OFFSET).view(torch.int8)
        pack_codes(codes[:0], num_bits)  # refuses bits that no code has
        limit = 2 ** (num_bits - 1)
        if len(codes) and not -limit <= int(codes.min()) <= int(codes.max()) < limit:
            raise CheckpointError(f"codes beyond {num_bits} bits")
        return codes

    def indices(self, values: int, count: int, shape: Shape) -> Tensor:
        """Return indices (uint8, 1-dim) into so many values."""
        stream = self._take("indices")
        if "indices" in self.coded:
            return _decode(stream, count, shape)
        return unpack_indices(stream, num_bits=index_bits(values), numel=count)

    def values(self, count: int, dtype: torch.dtype) -> Tensor:
        """Return numbers (1-dim)."""
        stream = self._take("values")
        if "values" in self.coded:
            return decode_numbers(_bytes(stream), count, dtype)
        if stream.ndim != 1 or stream.dtype != dtype or len(stream) != count:
            raise CheckpointError(
                f"expected {count} values of {dtype}, found {stream.dtype} of shape "
                f"{tuple(stream.shape)}"
            )
        return stream

    def codebook(self, dtype: torch.dtype) -> Tensor:
        """Return a codebook (1-dim)."""
        codebook = self._take("codebook")
        if codebook.ndim != 1 or codebook.dtype != dtype or not 1 <= len(codebook) <= MAX_VALUES:
            raise CheckpointError(
                f"expected a codebook of 1 to {MAX_VALUES} values of {dtype}, found "
                f"{codebook.dtype} of shape {tuple(codebook.shape)}"
            )
        return codebook

    def _take(self, stream: str) -> Tensor:
        return self.entries.pop(f"{self.name}#{stream}")


def coded_streams(about: dict[str, Any], index: Any, values: Any) -> list[str]:
    """Return the streams that a description says are coded; CheckpointError for other than can be."""
    coded = about.get("coded", [])
    can_be = {_CODED_AS.get(values), "mask" if index == "mask" else None}
    if not isinstance(coded, list) or any(stream not in can_be for stream in coded):
        raise CheckpointError(f"{coded!r} cannot be coded streams of {values} values")
    return coded


def index_bits(values: int) -> int:
    """Return the bits of an index into so many values, at least 1."""
    return max(1, (values - 1).bit_length())


def _decode(stream: Tensor, count: int, shape: Shape) -> Tensor:
    symbols = decode_symbols(_bytes(stream), _grid(shape, count))
    return torch.from_numpy(symbols.reshape(-1))


def _grid(shape: Shape, count: int) -> tuple[int, int, int]:
    """Return rows, columns and taps: a weight's output channels, input channels and the rest."""
    if len(shape) < 2:
        return 1, 1, count
    return shape[0], shape[1], math.prod(shape[2:])


def _bytes(stream: Tensor) -> bytes:
    if stream.dtype != torch.uint8 or stream.ndim != 1:
        raise CheckpointError(
            f"expected a coded stream of bytes, found {stream.dtype} of shape {tuple(stream.shape)}"
        )
    return stream.numpy().tobytes()
