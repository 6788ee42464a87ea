"""Packed bits against whole numbers in Python: every width, every length, and what is refused."""

from collections.abc import Callable

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given
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
from compression.errors import CompressionError, UnsupportedTypeError

WIDTHS = range(1, 9)
LENGTHS = [*range(42), 255, 256, 257]


def stream(elements: list[int], bits: int) -> list[int]:
    """Return the bytes of the format: one number of all the bits, lowest first."""
    whole = sum((element % 2**bits) << (i * bits) for i, element in enumerate(elements))
    return list(whole.to_bytes(-(-len(elements) * bits // 8), "little"))


def spread(count: int, bits: int) -> list[int]:
    """Return numbers of so many bits, the largest and 0 among them."""
    return [(i * 37 + 2**bits - 1) % 2**bits for i in range(count)]


@pytest.mark.parametrize("bits", WIDTHS)
def test_indices_of_every_length(bits: int) -> None:
    for count in LENGTHS:
        indices = spread(count, bits)
        packed = pack_indices(torch.tensor(indices, dtype=torch.uint8), bits)
        assert packed.tolist() == stream(indices, bits)
        again = unpack_indices(packed, num_bits=bits, numel=count)
        assert (again.dtype, again.tolist()) == (torch.uint8, indices)


@pytest.mark.parametrize("bits", WIDTHS[1:])
def test_codes_of_every_length(bits: int) -> None:
    for count in LENGTHS:
        codes = [index - 2 ** (bits - 1) for index in spread(count, bits)]
        packed = pack_codes(torch.tensor(codes, dtype=torch.int8), bits)
        assert packed.tolist() == stream(codes, bits)
        again = unpack_codes(packed, num_bits=bits, numel=count)
        assert (again.dtype, again.tolist()) == (torch.int8, codes)


def test_masks_of_every_length() -> None:
    for count in LENGTHS:
        mask = spread(count, 1)
        packed = pack_mask(torch.tensor(mask, dtype=torch.bool))
        assert packed.tolist() == stream(mask, 1)
        again = unpack_mask(packed, numel=count)
        assert (again.dtype, again.tolist()) == (torch.bool, [bool(bit) for bit in mask])


def gaps_of(mask: list[bool]) -> list[int]:
    """Return the gaps of the format, one element after the other."""
    gaps, zeros = [], 0
    for bit in mask:
        if bit:
            gaps += [255] * (zeros // 255) + [zeros % 255]
        zeros = 0 if bit else zeros + 1
    return gaps


RUNS = st.integers(0, 3) | st.sampled_from([254, 255, 256, 509, 510, 511, 765, 1020])


@given(st.lists(RUNS, max_size=12), RUNS)
def test_gaps_with_runs_around_multiples_of_255(runs: list[int], behind: int) -> None:
    bits = [bit for zeros in runs for bit in [False] * zeros + [True]] + [False] * behind
    mask = torch.tensor(bits, dtype=torch.bool)
    packed = pack_gaps(mask)
    assert packed.dtype == torch.uint8
    assert packed.tolist() == gaps_of(bits)
    again = unpack_gaps(packed, numel=len(bits))
    assert torch.equal(again, mask)


@pytest.mark.parametrize(
    ("zeros", "gaps"),
    [(0, [0]), (254, [254]), (255, [255, 0]), (256, [255, 1]), (510, [255, 255, 0])],
)
def test_gaps_by_hand(zeros: int, gaps: list[int]) -> None:
    mask = torch.zeros(zeros + 3, dtype=torch.bool)
    mask[zeros] = True
    assert pack_gaps(mask).tolist() == gaps


@given(st.lists(st.integers(0, 255), max_size=20), st.integers(0, 600))
def test_any_gaps_are_a_mask_or_refused(gaps: list[int], numel: int) -> None:
    packed = torch.tensor(gaps, dtype=torch.uint8)
    try:
        mask = unpack_gaps(packed, numel=numel)
    except CompressionError:
        last = sum(g + (g != 255) for g in gaps) - 1
        assert last >= numel or gaps[-1] == 255
        return
    assert len(mask) == numel
    assert pack_gaps(mask).tolist() == gaps


def test_any_layout_is_packed_in_its_order() -> None:
    codes = torch.arange(12, dtype=torch.uint8).view(3, 4)
    assert torch.equal(pack_indices(codes.t(), 4), pack_indices(codes.t().reshape(-1).clone(), 4))
    mask = (codes % 3 == 0).t()
    for pack in (pack_mask, pack_gaps):
        assert torch.equal(pack(mask), pack(mask.reshape(-1).clone()))


OCTETS = torch.tensor([0xFF, 0xFF], dtype=torch.uint8)
UNPACK: dict[str, Callable[[Tensor], Tensor]] = {
    "codes": lambda packed: unpack_codes(packed, num_bits=4, numel=4),
    "indices": lambda packed: unpack_indices(packed, num_bits=4, numel=4),
    "mask": lambda packed: unpack_mask(packed, numel=16),
    "gaps": lambda packed: unpack_gaps(packed, numel=16),
}


@pytest.mark.parametrize("kind", UNPACK)
@pytest.mark.parametrize(
    "packed",
    [OCTETS.int(), OCTETS.view(1, 2), OCTETS[0], OCTETS.view(torch.int8)],
    ids=["int32", "2-dim", "0-dim", "int8"],
)
def test_what_is_no_bytes_is_refused(kind: str, packed: Tensor) -> None:
    with pytest.raises(CompressionError, match="packed bytes, found"):
        UNPACK[kind](packed)


@pytest.mark.parametrize("kind", ["codes", "indices", "mask"])
@pytest.mark.parametrize("count", [0, 1, 3])
def test_other_than_the_bytes_of_the_elements_is_refused(kind: str, count: int) -> None:
    with pytest.raises(CompressionError, match="expected 2 packed bytes"):
        UNPACK[kind](torch.zeros(count, dtype=torch.uint8))


def test_bits_behind_the_last_element_are_refused() -> None:
    for bits in range(1, 8):
        with pytest.raises(CompressionError, match="zero bits after"):
            unpack_indices(OCTETS[:1], num_bits=bits, numel=1)


@pytest.mark.parametrize("bits", [-1, 0, 9, 64])
def test_bits_beyond_a_byte_are_refused(bits: int) -> None:
    empty = torch.zeros(0, dtype=torch.uint8)
    for call in (
        lambda: pack_indices(empty, bits),
        lambda: pack_codes(empty.view(torch.int8), bits),
        lambda: unpack_indices(empty, num_bits=bits, numel=0),
        lambda: unpack_codes(empty, num_bits=bits, numel=0),
    ):
        with pytest.raises(CompressionError, match="num_bits must lie in"):
            call()


def test_a_code_has_two_bits_at_least() -> None:
    with pytest.raises(CompressionError, match=r"num_bits must lie in 2\.\.8, found 1"):
        pack_codes(torch.zeros(1, dtype=torch.int8), 1)


def test_elements_beyond_their_bits_and_other_dtypes_are_refused() -> None:
    with pytest.raises(CompressionError, match=r"3 bits hold 0\.\.7, found 0\.\.8"):
        pack_indices(torch.tensor([0, 8], dtype=torch.uint8), 3)
    with pytest.raises(CompressionError, match=r"3 bits hold -4\.\.3, found -5\.\.3"):
        pack_codes(torch.tensor([3, -5], dtype=torch.int8), 3)
    for pack in (lambda t: pack_codes(t, 8), lambda t: pack_indices(t, 8), pack_mask, pack_gaps):
        with pytest.raises(UnsupportedTypeError, match="to pack must be"):
            pack(torch.zeros(3))
