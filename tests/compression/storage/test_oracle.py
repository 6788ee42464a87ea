"""Our container against the safetensors library's: what one writes, the other reads."""

from pathlib import Path

import hypothesis.strategies as st
import pytest
import safetensors
import safetensors.torch
import torch
from hypothesis import given, settings
from torch import Tensor, nn

from compression.errors import CheckpointError
from compression.storage import contents, load_checkpoint, save
from compression.storage.container import DTYPES, read
from tests.support.storage_faults import pack, raw_bytes, unpack
from tests.support.storage_nets import KINDS, Bag, digest, empty, make, raw
from tests.support.strategies import examples

NAMES = st.text(st.characters(codec="utf-8", exclude_characters="."), min_size=1, max_size=6)
# Of no more bytes than another encoding's description: all are stored plain.
SHAPES = st.lists(st.integers(0, 4), max_size=2) | st.sampled_from([(1, 2, 3, 2), (0, 2, 1)])


@st.composite
def finite_tensors(draw: st.DrawFn) -> Tensor:
    """Any tensor that has a place in both: of any dtype and shape, of numbers that are finite."""
    dtype = draw(st.sampled_from(list(DTYPES.values())))
    shape = draw(SHAPES)
    count = torch.Size(shape).numel()
    whole = torch.tensor(draw(st.lists(st.integers(0, 1), min_size=count, max_size=count)))
    return (
        (whole * draw(st.sampled_from([1, 3, 100])) + draw(st.integers(0, 1))).to(dtype).view(shape)
    )


BAGS = st.dictionaries(
    NAMES.filter(lambda n: n != "__metadata__" and not hasattr(nn.Module(), n)),
    finite_tensors(),
    max_size=5,
)


def same(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    return left.keys() == right.keys() and all(
        (t.dtype, t.shape, raw(t)) == (right[n].dtype, right[n].shape, raw(right[n]))
        for n, t in left.items()
    )


@settings(max_examples=examples(2))
@given(BAGS)
def test_the_library_reads_what_save_writes(
    tmp_path_factory: pytest.TempPathFactory, bag: dict[str, Tensor]
) -> None:
    path = tmp_path_factory.getbasetemp() / "ours"
    save(Bag(bag), path)
    assert same(safetensors.torch.load_file(path), dict(Bag(bag).state_dict()))


@settings(max_examples=examples(2))
@given(BAGS)
def test_load_checkpoint_reads_what_the_library_writes(
    tmp_path_factory: pytest.TempPathFactory, bag: dict[str, Tensor]
) -> None:
    path = tmp_path_factory.getbasetemp() / "theirs"
    path.write_bytes(safetensors.torch.save(dict(bag), {"format": "pt"}))
    assert same(read(path).entries, bag)
    assert digest(load_checkpoint(path, lambda: empty(bag))) == digest(Bag(bag))
    assert sum(contents(path).values()) == path.stat().st_size


# Of one width the library has an order of its own.
ONE_OF_A_WIDTH = (torch.int64, torch.float32, torch.float16, torch.bool)


@given(BAGS)
def test_both_write_the_same_bytes_behind_their_headers(bag: dict[str, Tensor]) -> None:
    """The order of the tensors and the padding of the header are the library's."""
    bag = {name: tensor for name, tensor in bag.items() if tensor.dtype in ONE_OF_A_WIDTH}
    ours, theirs = pack(bag, {"tensors": {}}), safetensors.torch.save(dict(bag))
    ends = [8 + int.from_bytes(data[:8], "little") for data in (ours, theirs)]
    assert ends[0] % 8 == ends[1] % 8 == 0
    assert ours[ends[0] :] == theirs[ends[1] :]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("coded", [False, True])
def test_the_library_finds_the_entries_of_each_kind(tmp_path: Path, kind: str, coded: bool) -> None:
    path = tmp_path / "model"
    save(make(kind), path, entropy_coded=coded)
    assert same(safetensors.torch.load_file(path), read(path).entries)
    with safetensors.safe_open(path, "pt") as file:
        assert list(file.metadata()) == ["dnn-compression"]


def test_the_library_finds_the_entries_of_each_encoding() -> None:
    assert same(safetensors.torch.load(raw_bytes()), unpack(raw_bytes()).entries)


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.complex64, torch.uint16])
def test_dtypes_of_the_library_alone_are_refused(tmp_path: Path, dtype: torch.dtype) -> None:
    path = tmp_path / "theirs"
    path.write_bytes(safetensors.torch.save({"a": torch.zeros(2).to(dtype)}))
    with pytest.raises(CheckpointError, match="damaged header, a: "):
        load_checkpoint(path, nn.Module)
