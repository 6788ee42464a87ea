"""One tensor through each encoding, and what a pruned network's file takes."""

import json
from pathlib import Path

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given
from torch import Tensor

from benchmarks.baseline.networks import resnet18_10
from compression.errors import CompressionError
from compression.pruning import prune_l1_unstructured
from compression.storage import contents, save
from compression.storage.encoding import decode, encode, same_bits
from tests.support.golden_tensors import RAW_BITS, coded_tensors, raw_tensors
from tests.support.nets import mlp
from tests.support.storage_faults import small_descriptions
from tests.support.storage_nets import raw
from tests.support.strategies import tensors


def round_trip(tensor: Tensor, *, num_bits: int | None = None, coded: bool = False) -> Tensor:
    with small_descriptions():
        about, entries = encode("t", tensor, num_bits=num_bits, entropy_coded=coded)
    about = json.loads(json.dumps(about))
    decoded = decode("t", about, entries)
    assert not entries
    return decoded


@given(tensors(), st.floats(0, 1), st.booleans())
def test_a_tensor_survives_bit_for_bit(x: Tensor, kept: float, coded: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    sparse = torch.where(torch.rand(x.shape, generator=generator) < kept, x, 0.0)
    for tensor in (x, sparse, -sparse, sparse.half(), sparse.bfloat16(), sparse != 0):
        assert raw(round_trip(tensor, coded=coded)) == raw(tensor)


EACH = [(n, t) for bag in (raw_tensors(), coded_tensors()) for n, t in bag.items()]


@pytest.mark.parametrize("coded", [False, True])
@pytest.mark.parametrize("i", range(len(EACH)))
def test_a_tensor_of_each_encoding_survives(i: int, coded: bool) -> None:
    name, tensor = EACH[i]
    again = round_trip(tensor, num_bits=RAW_BITS.get(name), coded=coded)
    assert (again.dtype, again.shape, raw(again)) == (tensor.dtype, tensor.shape, raw(tensor))


ODD = {
    "-0": torch.tensor(-0.0),
    "empty": torch.empty(0, 3),
    "nan": torch.tensor([float("nan"), float("inf"), -0.0]),
    "sparse -0": torch.zeros(100).index_fill(0, torch.tensor([3]), -0.0),
    "expanded": torch.ones(1).expand(50, 20),
    "sliced": torch.arange(1000.0)[10:20],
    "transposed": torch.arange(12.0).view(3, 4).t(),
    "int64": torch.arange(5),
    "bool": torch.tensor([True, False]),
    # One value alone is put among the zeros as a number, and torch has a NaN of its own then.
    "one NaN of bfloat16": torch.tensor([0, -1], dtype=torch.int16).view(torch.bfloat16),
    "one NaN of float16": torch.tensor([0, -1], dtype=torch.int16).view(torch.float16),
    "one NaN of float32": torch.tensor([0, 0x7F800001], dtype=torch.int32).view(torch.float32),
    "one largest number": torch.tensor([0, 2**63 - 1, 0]),
    "257 values": torch.arange(257.0).repeat(3),
    "a value that comes late": torch.ones(70_000).index_fill(0, torch.tensor([69_999]), 2.0),
    "values that come late": torch.cat([torch.ones(66_000), torch.arange(300.0)]),
}


@pytest.mark.parametrize("coded", [False, True])
@pytest.mark.parametrize("kind", ODD)
def test_odd_tensors_survive_and_are_stored_packed(kind: str, coded: bool) -> None:
    tensor = ODD[kind]
    assert same_bits(round_trip(tensor, coded=coded), tensor)
    _, entries = encode("t", tensor, num_bits=None, entropy_coded=coded)
    stored = sum(t.nbytes for t in entries.values())
    assert stored <= tensor.numel() * tensor.element_size() + 1


def test_same_bits_tells_what_equality_does_not() -> None:
    zero, nan = torch.tensor([0.0]), torch.tensor([float("nan")])
    assert same_bits(nan, nan.clone())
    assert not same_bits(zero, -zero)
    assert not same_bits(zero, zero.int())
    assert not same_bits(zero, zero.view(1, 1))


def test_a_60_percent_file_is_at_most_44_percent(tmp_path: Path) -> None:
    model = resnet18_10()
    whole = save(model, tmp_path / "whole")
    pruned = save(prune_l1_unstructured(model, amount=0.6), tmp_path / "pruned")
    assert pruned <= 0.44 * whole  # 0.4 of the values, 1/32 of index, batch norms
    assert contents(tmp_path / "pruned")["index"] >= 11_000_000 / 8


def test_a_model_with_nan_is_not_saved(tmp_path: Path) -> None:
    model = mlp()
    with torch.no_grad():
        model.get_parameter("1.bias")[0] = float("nan")
    with pytest.raises(CompressionError, match=r"1\.bias"):
        save(model, tmp_path / "model")
    assert not (tmp_path / "model").exists()
