"""A damaged file is a CheckpointError: never another exception, never other weights."""

import json
import re
import struct
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from torch import nn

from compression.errors import CheckpointError
from compression.storage import contents, load, load_checkpoint, save
from compression.storage.container import KEY
from tests.support.storage_faults import FILES, Net, intact_bytes, net, refuses
from tests.support.strategies import examples

INTACT = intact_bytes()


class Dense(nn.Linear):
    """One linear layer."""

    def __init__(self) -> None:
        super().__init__(3, 2)


def test_the_intact_file_loads(tmp_path: Path) -> None:
    path = tmp_path / "model"
    path.write_bytes(INTACT)
    for loaded in (load(path, Net), load_checkpoint(path, Net)):
        for name, tensor in net().state_dict().items():
            assert torch.equal(loaded.state_dict()[name], tensor)


def test_truncation_at_every_offset(tmp_path: Path) -> None:
    for length in range(len(INTACT)):
        refuses(tmp_path / "model", INTACT[:length])
        with pytest.raises(CheckpointError):
            contents(tmp_path / "model")


def test_a_flip_in_every_byte(tmp_path: Path) -> None:
    for position in range(len(INTACT)):
        # Every bit of the header's length and of our metadata's key, which no hash guards yet.
        for bit in range(8) if position < 64 else [position % 8]:
            damaged = bytearray(INTACT)
            damaged[position] ^= 1 << bit
            refuses(tmp_path / "model", bytes(damaged))


@settings(max_examples=examples(4))
@given(st.sampled_from(sorted(FILES)), st.data())
def test_any_edit(tmp_path_factory: pytest.TempPathFactory, kind: str, edit: st.DataObject) -> None:
    build, factory = FILES[kind]
    intact = build()
    start = edit.draw(st.integers(0, len(intact)))
    stop = edit.draw(st.integers(start, min(len(intact), start + 20)))
    inserted = edit.draw(st.binary(max_size=20))
    damaged = intact[:start] + inserted + intact[stop:]
    if damaged != intact:
        refuses(tmp_path_factory.getbasetemp() / "edited", damaged, factory=factory)


@settings(max_examples=examples(3))
@given(data=st.binary(max_size=200))
def test_any_bytes(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    refuses(tmp_path_factory.getbasetemp() / "bytes", data)


# Under these names stand the small tensors of a dtype, and no tensor: the first of them are named.
GROUPS = {
    "float32": r"small tensors of float32 \(bias, scale",
    "float16": r"small tensors of float16 \(float16",
    "int64": r"small tensors of int64 \(count",
    "bool": r"small tensors of bool \(flags",
}


def spans(data: bytes) -> dict[str, tuple[int, int]]:
    """Return where the bytes of each entry lie."""
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:end])
    del header["__metadata__"]
    begins = {name: field["data_offsets"] for name, field in header.items()}
    return {name: (end + begin, end + stop) for name, (begin, stop) in begins.items()}


@pytest.mark.parametrize("kind", FILES)
def test_a_damaged_tensor_is_named(tmp_path: Path, kind: str) -> None:
    build, factory = FILES[kind]
    intact, path = build(), tmp_path / "model"
    for entry, (begin, stop) in spans(intact).items():
        name = entry.split("#")[0]
        named = GROUPS[name] if kind == "coded" and name in GROUPS else rf"\b{re.escape(name)}: "
        for position in {begin, (begin + stop) // 2, stop - 1} if stop > begin else ():
            damaged = bytearray(intact)
            damaged[position] ^= 0x40
            match = f"damaged; .*{named}.*, its SHA-256 does not match; copy the file again"
            refuses(path, bytes(damaged), match=match, factory=factory)


def test_damage_of_the_header_alone_says_so(tmp_path: Path) -> None:
    intact = intact_bytes()
    position = intact.index(b"sha256") + len('sha256\\":\\"')
    digit = b"1" if intact[position : position + 1] == b"0" else b"0"
    damaged = intact[:position] + digit + intact[position + 1 :]
    refuses(tmp_path / "model", damaged, match="damaged in its header, .*copy the file again")


def test_a_damaged_key_does_not_make_it_a_plain_file(tmp_path: Path) -> None:
    path = tmp_path / "model"
    save(Dense(), path)  # its entries are those of plain safetensors
    data = path.read_bytes()
    path.write_bytes(data.replace(KEY.encode(), KEY.upper().encode()))
    for read in (load, load_checkpoint):
        with pytest.raises(CheckpointError, match="damaged metadata"):
            read(path, Dense)


def test_the_digest_of_another_file_does_not_help(tmp_path: Path) -> None:
    other = tmp_path / "other"
    model = net()
    model.get_buffer("sparse")[3] = 2.5
    save(model, other)
    swapped = bytearray(INTACT)
    position = INTACT.index(b"sha256") + len('sha256\\":\\"')
    swapped[position : position + 64] = other.read_bytes()[position : position + 64]
    assert bytes(swapped) != INTACT
    refuses(tmp_path / "model", bytes(swapped), match="its SHA-256 does not match")


# --- the container itself, as anyone may write it ---


def raw(header: object, body: bytes = b"", *, length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + body


def at(*offsets: Any, shape: Any = None, dtype: Any = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": [1] if shape is None else shape, "data_offsets": offsets}


CONTAINERS = {
    "one byte": b"x",
    "seven bytes": b"\x02\0\0\0\0\0\0",
    "header length alone": struct.pack("<Q", 0),
    "header longer than the file": raw({}, length=3),
    "header length overflowing": raw({}, length=2**64 - 1),
    "header length negative as signed": raw({}, length=2**63),
    "header not JSON": raw(b"{nonsense}"),
    "header not UTF-8": raw(b'{"\xff":1}'),
    "header a list": raw([]),
    "header nested deep": raw(b'{"a":' * 50_000 + b"1" + b"}" * 50_000),
    "header with a huge number": raw(b'{"a":' + b"1" * 10_000 + b"}"),
    "a key twice": raw(
        b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},'
        b'"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}',
        b"x",
    ),
    "overlap": raw({"a": at(0, 4), "b": at(0, 4)}, bytes(4)),
    "partial overlap": raw({"a": at(0, 4), "b": at(2, 6)}, bytes(6)),
    "gap": raw({"a": at(0, 4), "b": at(8, 12)}, bytes(12)),
    "trailing bytes": raw({"a": at(0, 4)}, bytes(5)),
    "body short": raw({"a": at(0, 4)}, bytes(3)),
    "offsets negative": raw({"a": at(-4, 0)}, bytes(4)),
    "offsets backward": raw({"a": at(4, 0)}, bytes(4)),
    "shape beyond its bytes": raw({"a": at(0, 4, shape=[2**40])}, bytes(4)),
    "shape overflowing": raw({"a": at(0, 4, shape=[2**33, 2**33])}, bytes(4)),
    # No sizes at all, as a number has none: one element.
    "shape a text": raw({"a": {"dtype": "F32", "shape": "", "data_offsets": [0, 4]}}, bytes(4)),
    "shape an object": raw({"a": {"dtype": "F32", "shape": {}, "data_offsets": [0, 4]}}, bytes(4)),
    "shape null": raw({"a": {"dtype": "F32", "shape": None, "data_offsets": [0, 4]}}, bytes(4)),
    "shape of texts": raw({"a": at(0, 4, shape=["1"])}, bytes(4)),
    "shape of fractions": raw({"a": at(0, 4, shape=[1.0])}, bytes(4)),
    "shape of truths": raw({"a": at(0, 4, shape=[True])}, bytes(4)),
    "shape overflowing of nothing": raw({"a": at(0, 0, shape=[0, 2**62, 2**62])}),
    "offsets of a text": raw({"a": {"dtype": "F32", "shape": [1], "data_offsets": "04"}}, bytes(4)),
    "offsets of fractions": raw({"a": at(0.0, 4.0)}, bytes(4)),
    "one offset": raw({"a": at(4)}, bytes(4)),
    "an entry a list": raw({"a": [1]}),
    "an entry null": raw({"a": None}),
    "dtype a list": raw({"a": at(0, 4, dtype=["F32"])}, bytes(4)),
    "shape negative": raw({"a": at(0, 4, shape=[-1])}, bytes(4)),
    "dtype unknown": raw({"a": at(0, 4, dtype="F31")}, bytes(4)),
    "dtype without torch's": raw({"a": at(0, 4, dtype="F4", shape=[8])}, bytes(4)),
    "metadata no object": raw({"__metadata__": 1}),
    "our metadata no text": raw({"__metadata__": {KEY: 1}}),
    "our metadata no JSON": raw({"__metadata__": {KEY: "{"}}),
    "our metadata nested deep": raw({"__metadata__": {KEY: "[" * 50_000}}),
    "our metadata a list": raw({"__metadata__": {KEY: "[]"}}),
    "our metadata without a hash": raw({"__metadata__": {KEY: '{"version":1}'}}),
    "our metadata with a short hash": raw({"__metadata__": {KEY: '{"version":1,"sha256":"0"}'}}),
    "our metadata with a number for a hash": raw(
        {"__metadata__": {KEY: '{"version":1,"sha256":7}'}}
    ),
}


@pytest.mark.parametrize("kind", CONTAINERS)
def test_a_container_that_lies(tmp_path: Path, kind: str) -> None:
    refuses(tmp_path / "model", CONTAINERS[kind])
    with pytest.raises(CheckpointError):
        contents(tmp_path / "model")


def test_plain_safetensors_is_for_load_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "model"
    path.write_bytes(safetensors.torch.save({"a": torch.ones(3)}))
    with pytest.raises(CheckpointError, match=r"plain safetensors.*use load_checkpoint"):
        load(path, Net)
    assert contents(path)["values"] == 12
