"""Symbols 0..255 <-> bytes at their entropy, by constriction's ANS coder with models of our own.

A block codes an array of symbols (rows, columns, taps), row-major:

    byte 0      0: one model for all; 1: a model for each of up to 15 contexts
    classes     where byte 0 is 1: a class 0..7 a row, then one a column, 4 bits each, low half first;
                the context of row r and column c is the sum of their classes
    tables      one for the block, or one for each context that occurs, in order: the first and the
                last symbol, then a byte for each from first to last: -16 log2 of its probability,
                rounded, at most 254; 255 where it does not occur
    words       constriction.stream.stack.AnsCoder (32-bit words, 24-bit precision), little-endian;
                the first context's symbols are decoded first, each in the order of the array; a
                model of one symbol takes no bits

A weight is more often zero in a row or column where others are (channels die as wholes): a class is
the share of symbols other than the commonest, in half octaves of the block's own.
"""

from collections.abc import Iterator

import constriction
import numpy as np
import torch
from numpy.typing import NDArray

from compression.bits import pack_indices, unpack_indices
from compression.errors import CheckpointError, CompressionError

Symbols = NDArray[np.uint8]

AnsCoder = constriction.stream.stack.AnsCoder
Categorical = constriction.stream.model.Categorical

CLASSES = 8
CONTEXTS = 2 * CLASSES - 1
_SMALL = 4096
"""Symbols below which contexts cannot pay for their tables."""
_GLANCE = 2**16  # symbols that tell the commonest one
_ABSENT = 255
# round(2^16 / 2^(i/16)): probabilities are made of whole numbers, the same on every machine.
_SIXTEENTHS = (
    65536, 62757, 60097, 57549, 55109, 52773, 50535, 48393,
    46341, 44376, 42495, 40693, 38968, 37316, 35734, 34219,
)  # fmt: skip
_WEIGHTS = np.array([_SIXTEENTHS[v % 16] << (15 - v // 16) for v in range(_ABSENT)], np.float64)


def encode_symbols(symbols: Symbols) -> bytes:
    """Return a block of `symbols` (rows, columns, taps), with contexts where they pay."""
    if not symbols.size:
        return b"\0"
    if symbols.size < _SMALL or symbols.shape[0] * symbols.shape[1] == 1:
        return b"\0" + _encode(symbols.reshape(-1), _histogram(symbols))
    classes = _classes(symbols)
    joint = _histograms(symbols, _contexts(*classes))
    whole = joint.sum(axis=0, keepdims=True)
    side = pack_indices(torch.from_numpy(np.concatenate(classes)), 4).numpy().tobytes()
    if len(side) + _bytes(joint) < _bytes(whole):
        order, _ = _order(*classes)
        symbols = symbols.reshape(len(order), -1)[order]
        return b"\1" + side + _encode(symbols.reshape(-1), joint[joint.any(axis=1)])
    return b"\0" + _encode(symbols.reshape(-1), whole)


def decode_symbols(block: bytes, shape: tuple[int, int, int]) -> Symbols:
    """Return the symbols in `block`; CheckpointError where it does not hold exactly `shape`."""
    reader = _Reader(block)
    rows, columns, taps = shape
    kind = reader.take(1)[0]
    if not rows * columns * taps:
        if block != b"\0":
            raise CheckpointError(f"an entropy-coded block of {len(block)} bytes for no symbol")
        return np.zeros(shape, np.uint8)
    if kind == 0:
        return _decode(reader, [rows * columns * taps]).reshape(shape)
    if kind != 1:
        raise CheckpointError(f"expected an entropy-coded block of kind 0 or 1, found {kind}")
    packed = torch.from_numpy(
        np.frombuffer(reader.take(-(-(rows + columns) // 2)), np.uint8).copy()
    )
    try:
        classes = unpack_indices(packed, num_bits=4, numel=rows + columns).numpy()
    except CompressionError as error:
        raise CheckpointError(f"classes in an entropy-coded block: {error}") from error
    if classes.max(initial=0) >= CLASSES:
        raise CheckpointError(f"classes lie in 0..{CLASSES - 1}, found {classes.max()}")
    order, counts = _order(classes[:rows], classes[rows:])
    decoded = _decode(reader, [int(count) * taps for count in counts if count])
    symbols = np.empty((len(order), taps), np.uint8)
    symbols[order] = decoded.reshape(-1, taps)
    return symbols.reshape(shape)


def _classes(symbols: Symbols) -> tuple[Symbols, Symbols]:
    """Return the class of each row and of each column."""
    rows, columns, taps = symbols.shape
    other = symbols != _histogram(symbols.reshape(-1)[:_GLANCE]).argmax()
    # numpy counts bits faster than it adds bools.
    of_rows = np.bitwise_count(np.packbits(other.reshape(rows, -1), axis=1)).sum(axis=1)
    of_columns = other.reshape(rows, -1).sum(axis=0, dtype=np.int32).reshape(columns, taps).sum(1)
    whole = max(int(of_rows.sum()), 1)
    shares = (of_rows * (rows / whole), of_columns * (columns / whole))  # 1 is the block's own
    rare = 2.0 ** -(CLASSES / 2)
    steps = [np.rint(2 * np.log2(np.maximum(share, rare))) + CLASSES / 2 for share in shares]
    of_row, of_column = (np.clip(s, 0, CLASSES - 1).astype(np.uint8) for s in steps)
    return of_row, of_column


def _contexts(rows: Symbols, columns: Symbols) -> Symbols:
    """Return the context (rows, columns) of each row's symbols in each column."""
    return rows[:, None] + columns[None, :]


def _order(rows: Symbols, columns: Symbols) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the positions (rows x columns) by context, and how many there are of each."""
    contexts = _contexts(rows, columns).reshape(-1)
    return np.argsort(contexts, kind="stable"), np.bincount(contexts, minlength=CONTEXTS)


def _histogram(symbols: Symbols) -> NDArray[np.int64]:
    """Return how often each of the 256 symbols occurs, as one row."""
    return np.bincount(symbols.reshape(-1), minlength=256)[None]


def _histograms(symbols: Symbols, contexts: Symbols) -> NDArray[np.int64]:
    keys = (contexts.astype(np.uint16) << 8)[:, :, None] | symbols
    return np.bincount(keys.reshape(-1), minlength=CONTEXTS << 8).reshape(CONTEXTS, 256)


def _bytes(histograms: NDArray[np.int64]) -> float:
    """Return what symbols of these histograms (tables, 256) take, their tables included."""
    counts = histograms[histograms.any(axis=1)].astype(np.float64)
    shares = counts / counts.sum(axis=1, keepdims=True)
    bits = -(counts * np.log2(np.where(counts > 0, shares, 1.0))).sum()
    spans = [int(np.ptp(row.nonzero()[0])) + 3 for row in counts]
    return float(bits) / 8 + sum(spans)


class _Model:
    """The alphabet of one table, and its probabilities for constriction."""

    def __init__(self, costs: Symbols, first: int) -> None:
        ranks = (costs != _ABSENT).nonzero()[0]
        self.alphabet = (ranks + first).astype(np.uint8)
        weights = _WEIGHTS[costs[ranks]]
        # constriction has no model of a single symbol, which takes no bits.
        several = len(ranks) > 1
        self.entropy = Categorical(weights / weights.sum(), perfect=False) if several else None

    def ranks(self, symbols: Symbols) -> NDArray[np.int32]:
        table = np.zeros(256, np.int32)
        table[self.alphabet] = np.arange(len(self.alphabet), dtype=np.int32)
        return table[symbols]


def _encode(symbols: Symbols, histograms: NDArray[np.int64]) -> bytes:
    """Return the tables and the words of segments that follow one another in `symbols`."""
    tables, models = [], []
    for counts in histograms:
        present = counts.nonzero()[0]
        first, last = int(present[0]), int(present[-1])
        span = counts[first : last + 1]
        shares = np.maximum(span, 1) / counts.sum()
        costs = np.minimum(np.rint(-16 * np.log2(shares)), _ABSENT - 1).astype(np.uint8)
        costs = np.where(span > 0, costs, _ABSENT).astype(np.uint8)
        tables.append(bytes([first, last]) + costs.tobytes())
        models.append(_Model(costs, first))
    coder = AnsCoder()
    segments = np.split(symbols, np.cumsum(histograms.sum(axis=1))[:-1])
    for segment, model in zip(reversed(segments), reversed(models), strict=True):  # a stack
        if model.entropy is not None:
            coder.encode_reverse(model.ranks(segment), model.entropy)
    return b"".join(tables) + coder.get_compressed().astype("<u4").tobytes()


class _Reader:
    """Bytes taken from the front of a block."""

    def __init__(self, block: bytes) -> None:
        self.block, self.position = block, 0

    def take(self, count: int) -> bytes:
        end = self.position + count
        if end > len(self.block):
            raise CheckpointError(
                f"an entropy-coded block of {len(self.block)} bytes ends before byte {end}"
            )
        taken = self.block[self.position : end]
        self.position = end
        return taken


def _models(reader: _Reader, count: int) -> Iterator[_Model]:
    for _ in range(count):
        first, last = reader.take(2)
        if last < first:
            raise CheckpointError(f"a table of symbols {first}..{last} in an entropy-coded block")
        costs = np.frombuffer(reader.take(last - first + 1), np.uint8)
        if (costs == _ABSENT).all():
            raise CheckpointError("a table without symbols in an entropy-coded block")
        yield _Model(costs, first)


def _decode(reader: _Reader, sizes: list[int]) -> Symbols:
    models = list(_models(reader, len(sizes)))
    rest = reader.take(len(reader.block) - reader.position)
    if len(rest) % 4 or rest[-4:] == bytes(4):
        raise CheckpointError(f"damaged words in an entropy-coded block ({len(rest)} bytes)")
    coder = AnsCoder(np.frombuffer(rest, "<u4").astype(np.uint32))
    decoded = np.empty(sum(sizes), np.uint8)
    end = 0
    for size, model in zip(sizes, models, strict=True):
        part = decoded[end : end + size]
        end += size
        if model.entropy is None:
            part[:] = model.alphabet[0]
        else:
            np.take(model.alphabet, coder.decode(model.entropy, size), out=part)
    # Too many words. Too few decode to the lowest symbols: the tensor's CRC-32 tells.
    if not coder.is_empty():
        raise CheckpointError("an entropy-coded block does not end with its last symbol")
    return decoded
