"""Embeddings of codes in compiled code beside the layers that they stand for, to the bit."""

import copy
import pickle
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from compression.accounting import count_parameters
from compression.errors import CompressionError, UnsupportedTypeError
from compression.integer import lacking
from compression.integer.native import EMBEDDING_KERNEL, native_embedding
from compression.quantization import quantize_weights

pytestmark = pytest.mark.skipif(lacking("native") is not None, reason=str(lacking("native")))


def both(
    rows: int = 23, columns: int = 40, *, bits: int = 8, group_size: int | None = None
) -> tuple[Any, Any]:
    """Return an embedding of codes and its kernel."""
    torch.manual_seed(rows + columns)
    layer = nn.Embedding(rows, columns, padding_idx=rows - 1)
    quantized = quantize_weights(layer, num_bits=bits, group_size=group_size)
    kernel = native_embedding(quantized)
    assert kernel is not None
    return quantized, kernel


def assert_same_bits(found: Tensor, wanted: Tensor) -> None:
    assert found.shape == wanted.shape
    assert found.dtype == wanted.dtype == torch.float32
    assert torch.equal(found.view(torch.int32), wanted.view(torch.int32))


@given(
    rows=st.integers(1, 40),
    columns=st.integers(1, 150),
    bits=st.integers(2, 8),
    group_size=st.none() | st.integers(1, 20) | st.sampled_from((32, 64, 100, 1000)),
    shape=st.lists(st.integers(0, 5), max_size=3),
    dtype=st.sampled_from((torch.int32, torch.int64)),
)
@torch.no_grad()
def test_any_table_gives_the_rows_of_its_codes(
    rows: int,
    columns: int,
    bits: int,
    group_size: int | None,
    shape: list[int],
    dtype: torch.dtype,
) -> None:
    layer, kernel = both(rows, columns, bits=bits, group_size=group_size)
    indices = torch.randint(rows, shape, dtype=dtype)
    assert_same_bits(kernel(indices), layer.weight[indices.long()])
    assert_same_bits(kernel(indices), layer(indices))
    assert kernel.kernels_ran == {EMBEDDING_KERNEL: 1}
    assert_same_bits(kernel.weight, layer.weight)


@pytest.mark.parametrize("bits", [4, 8])
@torch.no_grad()
def test_threads_strides_and_copies_change_no_bit(bits: int) -> None:
    layer, kernel = both(1000, 300, bits=bits, group_size=100)
    indices = torch.randint(1000, (16, 64))
    wanted, threads = layer(indices), torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert_same_bits(kernel(indices), wanted)
        assert_same_bits(kernel(input=indices.t()), wanted.transpose(0, 1).contiguous())
        assert_same_bits(kernel(indices[:, ::3]), wanted[:, ::3].contiguous())
        assert_same_bits(kernel(indices[:1].expand(3, 64)), layer(indices[:1].expand(3, 64)))
        indices[7, 11] = 1000  # in one thread's share
        with pytest.raises(IndexError):
            kernel(indices)
    finally:
        torch.set_num_threads(threads)
    indices[7, 11] = 999
    for same in (copy.deepcopy(kernel), pickle.loads(pickle.dumps(kernel))):
        assert_same_bits(same(indices), layer(indices))
        assert (same.num_embeddings, same.embedding_dim, same.padding_idx) == (1000, 300, 999)


@pytest.mark.parametrize("beyond", [-1, 23, -(2**31), 2**31 - 1, 2**40, -(2**63)])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_an_index_without_a_row_raises_what_torch_raises(place: int, beyond: int) -> None:
    _, kernel = both()
    indices = torch.tensor([3, 22, 0])
    indices[place] = beyond
    with pytest.raises(IndexError) as wanted:
        nn.Embedding(23, 40)(indices)
    with pytest.raises(IndexError, match=str(wanted.value)):
        kernel(indices)
    if abs(beyond) < 2**31:
        with pytest.raises(IndexError, match=str(wanted.value)):
            kernel(indices.int())


def test_codes_take_as_many_bits() -> None:
    for bits, group_size, scales in ((8, None, 1), (4, None, 1), (3, 64, 2)):
        _, kernel = both(50, 128, bits=bits, group_size=group_size)
        assert kernel.table.nbytes == 32 + 50 * (4 * scales + 128 * (8 if bits == 8 else 4) // 8)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_what_it_was_not_made_for_is_refused() -> None:
    _, kernel = both()
    nested = torch.nested.nested_tensor([torch.tensor([1]), torch.tensor([2, 3])])
    for indices in (torch.ones(2), torch.ones(2).bool(), torch.ones(2).byte(), nested):
        with pytest.raises(CompressionError, match="deployed for indices of int32 or int64"):
            kernel(indices)
    with pytest.raises(CompressionError, match=r"found torch\.int64 on meta"):
        kernel(torch.ones(2, dtype=torch.int64, device="meta"))
    with pytest.raises(UnsupportedTypeError, match="holds its weights outside of torch"):
        count_parameters(kernel)


def test_layers_of_other_numbers_have_no_kernel() -> None:
    huge = nn.Embedding(4, 4)
    with torch.no_grad():
        huge.weight.fill_(3e38)
    for other in (
        quantize_weights(huge),  # a code may stand for a number beyond float32
        quantize_weights(nn.Embedding(4, 4).double()),
        quantize_weights(nn.Embedding(4, 4).bfloat16()),
        quantize_weights(nn.Linear(4, 4)),
        nn.Embedding(4, 4),
        nn.EmbeddingBag(4, 4),
    ):
        assert native_embedding(other) is None
