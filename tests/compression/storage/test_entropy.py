"""Entropy-coded symbols come back, at their entropy; numbers do, byte by byte."""

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings

from compression.storage.encoding import DTYPES
from compression.storage.entropy import Symbols, decode_symbols, encode_symbols
from compression.storage.planes import decode_numbers, encode_numbers
from tests.support.storage_nets import raw
from tests.support.strategies import examples

SMALL_SHAPES = st.tuples(st.integers(0, 6), st.integers(0, 6), st.integers(0, 6))
# With these, contexts may pay: 4096 symbols and more.
LARGE_SHAPES = st.sampled_from([(64, 64, 1), (1, 512, 9), (600, 1, 7), (17, 33, 9), (1, 1, 5000)])
KINDS = st.sampled_from(["one symbol", "two symbols", "skewed", "uniform", "all 256", "dead rows"])


def symbols_of(shape: tuple[int, int, int], kind: str, seed: int) -> Symbols:
    """Return symbols of one of the KINDS."""
    rng = np.random.default_rng(seed)
    low, high = np.sort(rng.integers(0, 256, 2))
    match kind:
        case "one symbol":
            return np.full(shape, low, np.uint8)
        case "two symbols":
            return np.where(rng.random(shape) < rng.random() ** 4, low, high).astype(np.uint8)
        case "uniform":
            return rng.integers(low, high + 1, shape).astype(np.uint8)
        case "all 256":
            return np.resize(rng.permutation(256), shape).astype(np.uint8)
    skewed = np.rint(rng.laplace(low, rng.random() * 9, shape)).clip(0, 255).astype(np.uint8)
    if kind == "dead rows":
        skewed[rng.random(shape[0]) < 0.5] = low
        skewed[:, rng.random(shape[1]) < 0.5] = low
    return skewed


def comes_back(symbols: Symbols) -> bytes:
    """Assert that the block decodes to the symbols, and return it."""
    block = encode_symbols(symbols)
    assert encode_symbols(symbols.copy()) == block
    decoded = decode_symbols(block, symbols.shape)
    assert decoded.dtype == np.uint8
    assert decoded.shape == symbols.shape
    assert np.array_equal(decoded, symbols)
    return block


@settings(max_examples=examples(2))
@given(SMALL_SHAPES | LARGE_SHAPES, KINDS, st.integers(0, 2**32))
def test_any_symbols_come_back(shape: tuple[int, int, int], kind: str, seed: int) -> None:
    comes_back(symbols_of(shape, kind, seed))


@given(st.binary(max_size=300))
def test_any_bytes_come_back(data: bytes) -> None:
    comes_back(np.frombuffer(data, np.uint8).reshape(1, 1, -1))


@pytest.mark.parametrize("symbol", [0, 1, 128, 254, 255])
def test_one_symbol_takes_a_table_and_no_words(symbol: int) -> None:
    block = comes_back(np.full((1, 1, 1000), symbol, np.uint8))
    assert block == bytes([0, symbol, symbol, 0])


def test_no_symbols_take_a_byte() -> None:
    for shape in ((0, 0, 0), (0, 5, 3), (5, 0, 3), (5, 3, 0)):
        assert comes_back(np.zeros(shape, np.uint8)) == b"\0"


def test_the_rarest_and_the_commonest_of_256_symbols() -> None:
    """A share of one in a million has the largest cost that a table holds."""
    symbols = np.zeros(10**6, np.uint8)
    symbols[:255] = np.arange(1, 256)
    block = comes_back(symbols.reshape(1, 1, -1))
    assert block[:5] == bytes([0, 0, 255, 0, 254])
    assert comes_back(symbols[::-1].reshape(1, 1, -1))


def entropy_bytes(symbols: Symbols) -> float:
    counts = np.bincount(symbols.reshape(-1), minlength=256)
    shares = counts[counts > 0] / symbols.size
    return float(-(shares * np.log2(shares)).sum()) * symbols.size / 8


def laplacian(shape: tuple[int, ...], scale: float) -> Symbols:
    drawn = np.random.default_rng(0).laplace(0, scale, shape)
    return (np.rint(drawn).clip(-128, 127) + 128).astype(np.uint8)


@pytest.mark.parametrize("scale", [1, 4, 12])
def test_a_block_is_within_a_percent_of_the_entropy(scale: float) -> None:
    """A table of at most 258 bytes is 0.4%; costs in sixteenths of a bit and 32-bit words, 0.1%."""
    symbols = laplacian((1, 1, 100_000), scale)
    block = comes_back(symbols)
    assert entropy_bytes(symbols) <= len(block) <= 1.01 * entropy_bytes(symbols)


def test_dead_rows_and_columns_have_contexts_below_the_entropy_of_one_model() -> None:
    symbols = laplacian((100, 100, 9), 4)
    symbols[::2], symbols[:, ::3] = 128, 128
    block = comes_back(symbols)
    assert block[0] == 1
    # A third of the symbols is alive; the rest should take next to nothing.
    alive = np.delete(symbols[1::2], np.s_[::3], axis=1)
    assert len(block) < 1.03 * entropy_bytes(alive) < 0.8 * entropy_bytes(symbols)


def test_contexts_are_not_used_where_they_do_not_pay() -> None:
    assert comes_back(laplacian((100, 100, 9), 4))[0] == 0
    dead = laplacian((60, 60, 1), 4)
    dead[::2] = 128
    assert comes_back(dead)[0] == 0  # fewer than 4096 symbols
    assert comes_back(dead.repeat(2, axis=2))[0] == 1


@settings(max_examples=examples(2))
@given(st.sampled_from(sorted(DTYPES)), st.binary(max_size=400), st.integers(1, 20))
def test_numbers_of_any_bits_come_back(dtype: str, data: bytes, repeat: int) -> None:
    kind = DTYPES[dtype]
    if kind == torch.bool:
        data = bytes(byte % 2 for byte in data)
    data = data[: len(data) // kind.itemsize * kind.itemsize] * repeat
    flat = torch.empty(len(data) // kind.itemsize, dtype=kind)
    if data:
        flat = torch.frombuffer(bytearray(data), dtype=kind)
    coded = encode_numbers(flat)
    assert len(coded) <= len(data) + 4 * kind.itemsize
    again = decode_numbers(coded, len(flat), kind)
    assert again.dtype == kind
    assert raw(again) == data


def test_numbers_of_few_exponents_take_less() -> None:
    flat = torch.from_numpy(np.random.default_rng(0).normal(0, 0.02, 10_000)).float()
    coded = encode_numbers(flat)
    assert 3 * 10_000 < len(coded) < 3.5 * 10_000  # mantissas as they are, exponents at 3 bits
    assert len(encode_numbers(flat.bfloat16().float())) < 1.5 * 10_000
    assert raw(decode_numbers(coded, 10_000, torch.float32)) == raw(flat)
