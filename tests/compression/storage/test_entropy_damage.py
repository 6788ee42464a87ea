"""A damaged block is a CheckpointError or symbols of its shape: no other exception, no hang."""

from collections.abc import Callable

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings

from compression.errors import CheckpointError
from compression.storage.entropy import decode_symbols, encode_symbols
from compression.storage.planes import decode_numbers, encode_numbers
from tests.support.golden_tensors import coded_tensors, numbers
from tests.support.storage_faults import (
    FILES,
    About,
    Entries,
    coded_bytes,
    forge,
    refuses_or_equals,
    unpack,
)
from tests.support.storage_nets import Bag, digest
from tests.support.strategies import examples

Shape = tuple[int, int, int]
GRID = (coded_tensors()["grid"].numpy().view(np.uint8) ^ 128).reshape(64, 64, 1)
# A block and its shape: of one model and of several, of one symbol and of all, and of none.
BLOCKS: dict[str, tuple[bytes, Shape]] = {
    "one model": (encode_symbols(GRID[:40, :40]), (40, 40, 1)),
    "contexts": (encode_symbols(GRID), (64, 64, 1)),
    "one symbol": (encode_symbols(np.full((2, 3, 4), 7, np.uint8)), (2, 3, 4)),
    "all 256": (encode_symbols(np.arange(256, dtype=np.uint8).reshape(16, 16, 1)), (16, 16, 1)),
    "none": (encode_symbols(np.zeros((2, 0, 3), np.uint8)), (2, 0, 3)),
}


def is_refused_or_of_its_shape(block: bytes, shape: Shape) -> None:
    # What constriction panics with is no Exception, and would fail here too.
    try:
        symbols = decode_symbols(block, shape)
    except CheckpointError:
        return
    assert symbols.dtype == np.uint8
    assert symbols.shape == shape


def damage(draw: st.DrawFn, block: bytes) -> bytes:
    """Flip, cut, insert or replace a few bytes."""
    damaged = bytearray(block)
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(damaged)))
        stop = draw(st.integers(start, min(len(damaged), start + 5)))
        damaged[start:stop] = draw(st.binary(max_size=5) | st.just(damaged[start:stop][::-1]))
    cut = draw(st.integers(0, len(damaged)))
    return bytes(damaged[:cut] if draw(st.booleans()) else damaged)


@settings(max_examples=examples(5))
@given(st.sampled_from(sorted(BLOCKS)), st.data())
def test_a_damaged_block(kind: str, data: st.DataObject) -> None:
    block, shape = BLOCKS[kind]
    is_refused_or_of_its_shape(damage(data.draw, block), shape)


@pytest.mark.parametrize("kind", BLOCKS)
def test_truncation_and_a_flip_in_each_byte(kind: str) -> None:
    block, shape = BLOCKS[kind]
    for position in range(len(block)):
        for flipped in (1, 0x80, 0xFF):
            damaged = bytearray(block)
            damaged[position] ^= flipped
            is_refused_or_of_its_shape(bytes(damaged), shape)
        # Without its last words a block may decode, to its lowest symbols: CRC-32 tells.
        is_refused_or_of_its_shape(block[:position], shape)
    for behind in (b"\0", bytes(4), b"\1\0\0\0", b"\xff" * 8):
        with pytest.raises(CheckpointError):
            decode_symbols(block + behind, shape)


SHAPES = st.tuples(*[st.integers(0, 5)] * 3)
COSTS = st.sampled_from([0, 1, 128, 254, 255]) | st.integers(0, 255)


@st.composite
def tables(draw: st.DrawFn) -> bytes:
    """A table as a damaged or hostile file may hold it, mostly of the right length."""
    first = draw(st.integers(0, 255))
    last = draw(st.just(first) | st.integers(first, 255) | st.just(255))
    costs = draw(st.lists(COSTS, min_size=last - first + 1, max_size=last - first + 1))
    return bytes([first, last, *costs])


WORDS = st.sampled_from([b"", bytes(4), b"\1\0\0\0", b"\xff" * 4, b"\xff" * 40]) | st.binary(
    max_size=40
).map(lambda data: data[: len(data) // 4 * 4])


@settings(max_examples=examples(5))
@given(SHAPES, st.booleans(), st.lists(tables(), max_size=4), WORDS, st.data())
def test_a_block_of_any_parts(
    shape: Shape, contexts: bool, parts: list[bytes], words: bytes, data: st.DataObject
) -> None:
    side = b""
    if contexts:
        count = -(-(shape[0] + shape[1]) // 2)
        side = bytes(data.draw(st.lists(st.integers(0, 0x77), min_size=count, max_size=count)))
    is_refused_or_of_its_shape(bytes([contexts]) + side + b"".join(parts) + words, shape)


@given(SHAPES, st.binary(max_size=60))
def test_any_bytes_as_a_block(shape: Shape, data: bytes) -> None:
    is_refused_or_of_its_shape(data, shape)


# Tables at the edges of what constriction takes; the words are tried with each of them.
TABLES = {
    "all of the largest cost": [254] * 256,
    "all of no cost": [0] * 256,
    "one sure, the rest as rare as can be": [0] + [254] * 255,
    "two, one as rare as can be": [254, 0],
    "the last of 256 alone beside the first": [254] + [255] * 254 + [254],
}
ENDS = [b"", bytes(4), bytes(40), b"\1\0\0\0", b"\xff" * 4, b"\xff" * 400, b"\1" + bytes(7)]


@pytest.mark.parametrize("kind", TABLES)
def test_tables_at_the_edges(kind: str) -> None:
    table = bytes([0, len(TABLES[kind]) - 1, *TABLES[kind]])
    for words in ENDS:
        for count in (1, 5, 10_000):
            is_refused_or_of_its_shape(b"\0" + table + words, (1, 1, count))


REFUSED: dict[str, tuple[bytes, Shape, str]] = {
    "of no bytes": (b"", (1, 1, 1), "ends before byte 1"),
    "of another kind": (b"\2\0\0\0", (1, 1, 1), "kind 0 or 1, found 2"),
    "a table backward": (b"\0\5\4\0", (1, 1, 1), r"symbols 5\.\.4"),
    "a table of no symbol": (b"\0\4\5\xff\xff", (1, 1, 1), "without symbols"),
    "a table cut": (b"\0\4\x09\0", (1, 1, 1), "ends before byte 9"),
    "no table": (b"\0", (1, 1, 1), "ends before byte 3"),
    "words cut": (b"\0\0\1\x10\x10\1\1\1", (1, 1, 9), r"damaged words .*\(3 bytes\)"),
    "a zero word last": (b"\0\0\1\x10\x10\1\0\0\0\0\0\0\0", (1, 1, 9), "damaged words"),
    "words behind one symbol": (b"\0\7\7\0\1\0\0\0", (1, 1, 9), "does not end with its last"),
    "words of no symbols": (b"\0\1\0\0\0", (1, 1, 0), "5 bytes for no symbol"),
    "words for more": (b"\0\0\1\x10\x10" + b"\xff" * 40, (1, 1, 9), "does not end with its last"),
    "a class beyond": (b"\1\x88\0\0\0\0", (1, 1, 1), r"classes lie in 0\.\.7, found 8"),
    "classes cut": (b"\1\0", (3, 4, 1), "ends before byte 5"),
    # An odd number of classes leaves half a byte, which is zero.
    "bits behind the classes": (b"\1\0\x10\7\7\0", (1, 2, 1), "zero bits after"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_wrong_is_named(kind: str) -> None:
    block, shape, match = REFUSED[kind]
    with pytest.raises(CheckpointError, match=match):
        decode_symbols(block, shape)


@pytest.mark.parametrize("shape", [(1, 1, 0), (0, 0, 0), (0, 2, 3), (2, 0, 3)])
def test_contexts_of_no_symbols_are_refused_or_none(shape: Shape) -> None:
    """The coder never writes them."""
    for tables in (b"", b"\7\7\0"):
        is_refused_or_of_its_shape(b"\1" + bytes(-(-sum(shape[:2]) // 2)) + tables, shape)


FLAT = numbers(60).bfloat16().float()
NUMBERS = encode_numbers(FLAT)


@settings(max_examples=examples(3))
@given(st.data())
def test_damaged_numbers(data: st.DataObject) -> None:
    damaged = damage(data.draw, NUMBERS)
    for dtype in (torch.float32, torch.int64, torch.bool):
        try:
            flat = decode_numbers(damaged, len(FLAT), dtype)
        except CheckpointError:
            continue
        assert (flat.dtype, flat.shape) == (dtype, FLAT.shape)


def test_numbers_cut_or_with_more_behind() -> None:
    for end in range(len(NUMBERS)):
        with pytest.raises(CheckpointError):
            decode_numbers(NUMBERS[:end], len(FLAT), torch.float32)
    with pytest.raises(CheckpointError, match="1 bytes after the coded numbers"):
        decode_numbers(NUMBERS + b"\0", len(FLAT), torch.float32)
    with pytest.raises(CheckpointError):
        decode_numbers(NUMBERS, len(FLAT) + 1, torch.float32)


def replaced(entry: str, stream: bytes) -> Callable[[Entries, About], object]:
    coded = torch.frombuffer(bytearray(stream), dtype=torch.uint8)
    return lambda entries, _: entries.update({entry: coded})


STREAMS = [
    n for n, t in unpack(coded_bytes()).entries.items() if "#" in n and t.dtype == torch.uint8
]


@settings(max_examples=examples(1))
@given(st.sampled_from(STREAMS), st.data())
def test_a_damaged_stream_never_loads_as_other_weights(
    tmp_path_factory: pytest.TempPathFactory, entry: str, data: st.DataObject
) -> None:
    """The file's hash is right, so what is left to tell is the tensor's own CRC-32."""
    stream = unpack(coded_bytes()).entries[entry].numpy().tobytes()
    damaged = damage(data.draw, stream)
    if not damaged:
        return  # torch has no buffer of no bytes: among the forgeries
    path = tmp_path_factory.getbasetemp() / "stream"
    forged = forge(replaced(entry, damaged), coded_bytes())
    refuses_or_equals(path, forged, FILES["coded"][1], digest(Bag(coded_tensors())))
