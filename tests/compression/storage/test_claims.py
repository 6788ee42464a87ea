"""Files with a right hash whose descriptions and streams do not agree, encoding by encoding."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from compression.storage.entropy import encode_symbols
from tests.support.golden_tensors import coded_tensors, raw_tensors
from tests.support.storage_faults import FILES, About, Change, Entries, forge, loaded, refuses
from tests.support.storage_nets import digest

Forgeries = dict[str, tuple[Change, str]]
OCTETS = torch.tensor([1, 2, 3], dtype=torch.uint8)


def claims(name: str, **changes: Any) -> Change:
    """Return a change of the description of a tensor."""
    return lambda _, about: about["tensors"][name].update(changes)


def lacks(name: str, key: str) -> Change:
    return lambda _, about: about["tensors"][name].pop(key)


def entry(name: str, tensor: Tensor) -> Change:
    """Return the replacement of an entry."""
    return lambda entries, _: entries.update({name: tensor})


def coded(symbols: Tensor) -> Tensor:
    """Return a stream of symbols, its shape as of a tensor."""
    shaped = symbols.reshape(*symbols.shape[:2], -1).to(torch.uint8).numpy()
    return torch.frombuffer(bytearray(encode_symbols(shaped)), dtype=torch.uint8)


def stretched(name: str, change: slice, more: bytes = b"") -> Change:
    """Return a cut of a stream, or the bytes put behind it."""

    def stretch(entries: Entries, about: About) -> None:
        data = entries[name].numpy().tobytes()[change] + more
        entries[name] = torch.from_numpy(np.frombuffer(data, np.uint8).copy())

    return stretch


FEW = torch.arange(6.0)
DENSE: About = {"encoding": "dense", "dtype": "float32", "shape": [9]}
RAW: Forgeries = {
    "an index outside the codebook": (
        entry("clustered#indices", torch.full((27,), 0xFF, dtype=torch.uint8)),
        "clustered: an index of 7 outside a codebook of 6 values",
    ),
    "a codebook too short": (entry("clustered#codebook", FEW[:5]), "an index of 5 outside"),
    "a codebook of more bits": (
        entry("clustered#codebook", torch.arange(17.0)),
        "clustered: .*expected 45 packed bytes",
    ),
    "a codebook of another dtype": (
        entry("clustered#codebook", FEW.double()),
        "clustered: expected a codebook of 1 to 256 values of torch.float32, found torch.float64",
    ),
    "a codebook of codes": (entry("clustered#codebook", FEW.to(torch.int8)), "found torch.int8"),
    "an empty codebook": (entry("clustered#codebook", FEW[:0]), r"found .* of shape \(0,\)"),
    "a codebook of 257": (entry("clustered#codebook", torch.ones(257)), r"of shape \(257,\)"),
    "a 2-dim codebook": (entry("clustered#codebook", FEW.view(2, 3)), r"of shape \(2, 3\)"),
    "a 0-dim codebook": (entry("clustered#codebook", FEW[0]), r"of shape \(\)"),
    "no codebook": (lambda e, _: e.pop("clustered#codebook"), "clustered: damaged description"),
    "no indices": (lambda e, _: e.pop("clustered#indices"), "clustered: damaged description"),
    "indices of another dtype": (
        entry("clustered#indices", torch.zeros(27, dtype=torch.int8)),
        "clustered: .*packed bytes, found torch.int8",
    ),
    "gaps beyond the end": (
        lambda e, _: e["gaps#gaps"].__setitem__(-1, 254),
        "gaps: .*gaps must end within 2400 elements, found 2557",
    ),
    "an open gap": (
        lambda e, _: e["gaps#gaps"].__setitem__(-1, 255),
        "gaps: .*gaps must end within 2400 elements, found an open gap",
    ),
    "a gap too few": (stretched("gaps#gaps", slice(-2)), "gaps: expected 8 values .* shape .9,"),
    "a gap too many": (stretched("gaps#gaps", slice(None), b"\0"), "gaps: expected 10 values"),
    "no gaps at all": (stretched("gaps#gaps", slice(0)), "gaps: expected 0 values"),
    "2-dim gaps": (
        lambda e, _: e.update({"gaps#gaps": e["gaps#gaps"].view(2, -1)}),
        r"gaps: .*packed bytes, found torch.uint8 of shape \(2, 9\)",
    ),
    "gaps of another dtype": (entry("gaps#gaps", OCTETS.int()), "gaps: .*found torch.int32"),
    "gaps called a mask": (claims("gaps", index="mask"), "gaps: damaged description"),
    "an unknown index": (claims("gaps", index="rle"), "gaps: "),
    "values that are sparse": (claims("gaps", values="sparse"), "unknown encoding 'sparse'"),
    "values that are an alias": (claims("gaps", values="alias"), "unknown encoding 'alias'"),
    "values of a list": (claims("gaps", values=["dense"]), "gaps: damaged description"),
    "an encoding of a list": (claims("packed", encoding=[]), "packed: damaged description"),
    "no encoding": (lacks("packed", "encoding"), "packed: damaged description"),
    "no bits": (lacks("packed", "bits"), r"packed: damaged description or entry \(KeyError"),
    "bits of null": (claims("packed", bits=None), "packed: damaged description"),
    "fewer bits": (claims("packed", bits=2), "packed: .*expected 16 packed bytes"),
    "no bits left": (claims("packed", bits=0), r"packed: .*num_bits must lie in 2\.\.8, found 0"),
    "a bit for codes": (claims("packed", bits=1), r"packed: .*num_bits must lie in 2\.\.8"),
    "huge bits": (claims("packed", bits=10**15), r"packed: .*num_bits must lie in 2\.\.8"),
    "bits of infinity": (claims("packed", bits=float("inf")), "packed: damaged description"),
    "another CRC-32": (claims("packed", crc32=1), "packed: damaged, its CRC-32 does not match"),
    "a CRC-32 of text": (claims("packed", crc32="1"), "packed: damaged, its CRC-32"),
    "another CRC-32 of a plain tensor": (
        lambda _, a: a["tensors"].update(dense=7),
        "dense: damaged, its CRC-32 does not match",
    ),
    "a plain tensor described as true": (
        lambda _, a: a["tensors"].update(dense=True),
        "dense: damaged, its CRC-32 does not match",
    ),
    "a dense tensor of another shape": (
        lambda _, a: a["tensors"].update(
            dense={"encoding": "dense", "dtype": "float32", "shape": [3, 4, 5]}, brain=dict(DENSE)
        ),
        r"brain expected torch.bfloat16 \(9,\), found torch.float32 \(9,\)",
    ),
    "a dense tensor of another entry": (
        lambda e, a: (a["tensors"].update(dense=dict(DENSE, shape=[3, 4, 5])), e.update(dense=FEW)),
        r"dense: expected torch.float32 \[3, 4, 5\], found torch.float32 \(6,\)",
    ),
    "a bool of 2": (
        lambda e, _: e["flags"].view(torch.uint8).__setitem__(0, 2),
        "flags: a bool is 0 or 1",
    ),
}

MORE = coded_tensors()["grid"].view(torch.uint8) ^ 128
CODED: Forgeries = {
    "a coded index outside the codebook": (
        entry("indices#indices", coded(torch.full((20, 30), 6))),
        "indices: an index of 6 outside a codebook of 6 values",
    ),
    "codes beyond their bits": (claims("grid", bits=3), "grid: codes beyond 3 bits"),
    "9 bits": (claims("grid", bits=9), r"grid: .*num_bits must lie in 2\.\.8, found 9"),
    "1 bit": (claims("grid", bits=1), r"grid: .*num_bits must lie in 2\.\.8, found 1"),
    "bits below zero": (claims("grid", bits=-5), r"grid: .*num_bits must lie in 2\.\.8"),
    # 2 to its power is no number of any machine.
    "bits beyond memory": (claims("grid", bits=10**15), r"grid: .*num_bits must lie in 2\.\.8"),
    "coded bits of null": (claims("grid", bits=None), "grid: damaged description"),
    "no coded bits": (lacks("grid", "bits"), "grid: damaged description"),
    "cut by a byte": (stretched("grid#codes", slice(-1)), "grid: damaged words"),
    "cut by a word": (stretched("grid#codes", slice(-4)), "grid: "),
    "cut to nothing": (stretched("grid#codes", slice(0)), "grid: .*ends before byte 1"),
    "cut to its tables": (stretched("grid#codes", slice(99)), "grid: "),
    "longer by a byte": (stretched("grid#codes", slice(None), b"\1"), "grid: damaged words"),
    "longer by a word": (stretched("grid#codes", slice(None), b"\1\0\0\0"), "grid: .*its last"),
    "longer by zeros": (stretched("grid#codes", slice(None), bytes(4)), "grid: damaged words"),
    "a stream of another dtype": (
        entry("grid#codes", OCTETS.to(torch.int16)),
        "grid: expected a coded stream of bytes, found torch.int16",
    ),
    "a 2-dim stream": (entry("grid#codes", OCTETS.view(1, 3)), r"grid: .*found .*\(1, 3\)"),
    "codes of a smaller grid": (entry("grid#codes", coded(MORE[:, :60])), "grid: "),
    "other codes": (entry("grid#codes", coded(MORE.flip(0))), "grid: damaged, its CRC-32"),
    "a coded mask of more": (entry("mask#mask", coded(torch.full((1, 2000), 1))), "mask: "),
    "a coded mask without words": (entry("mask#mask", OCTETS[:0]), "mask: .*ends before byte 1"),
    "a coded mask of ones": (
        entry("mask#mask", coded(torch.full((1, 1, 1024), 255))),
        "mask: expected 8192 values of torch.float16, found .*384",
    ),
    "values cut": (stretched("values#values", slice(-1)), "values: coded numbers of .* end before"),
    "values longer": (stretched("values#values", slice(None), b"x"), "values: 1 bytes after"),
    "no values": (stretched("values#values", slice(0)), "values: coded numbers of 0 bytes"),
    "not coded at all": (claims("grid", coded=[]), "grid: .*expected 4096 packed bytes"),
    "no word of a coder": (lacks("grid", "coded"), "grid: .*expected 4096 packed bytes"),
    "coded a number": (claims("grid", coded=5), "grid: 5 cannot be coded"),
    "coded null": (claims("grid", coded=None), "grid: None cannot be coded"),
    "coded of lists": (claims("grid", coded=[["codes"]]), "grid: "),
    # Whoever writes more than this package reads must not be read by halves.
    "coded of a text": (claims("grid", coded="codes"), "grid: "),
    "coded of an object": (claims("grid", coded={"codes": 1}), "grid: "),
    "an unknown stream coded": (claims("grid", coded=["codes", "tables"]), "grid: .*tables"),
    "a stream coded that is not": (claims("indices", coded=["indices", "codebook"]), "indices: "),
    "another CRC-32 of a coded tensor": (claims("taps", crc32=1), "taps: damaged, its CRC-32"),
    "a size below zero": (
        claims("grid", shape=[-64, -64]),
        "grid: .*sizes are whole numbers from 0",
    ),
    "a huge size": (
        claims("grid", shape=[10**6, 10**6]),
        r"grid expected torch.int8 \(64, 64\), found torch.int8 \(1000000, 1000000\)",
    ),
    "an empty size": (claims("grid", shape=[64, 0]), r"grid expected .*found .*\(64, 0\)"),
    "a dtype of the same width": (claims("grid", dtype="uint8"), "grid expected torch.int8"),
    "an unknown dtype": (claims("grid", dtype="complex64"), "grid: damaged description"),
}


@pytest.mark.parametrize("kind", RAW)
def test_a_forgery_of_raw_streams(tmp_path: Path, kind: str) -> None:
    build, factory = FILES["raw"]
    change, match = RAW[kind]
    refuses(tmp_path / "model", forge(change, build()), match=match, factory=factory)


@pytest.mark.parametrize("kind", CODED)
def test_a_forgery_of_coded_streams(tmp_path: Path, kind: str) -> None:
    build, factory = FILES["coded"]
    change, match = CODED[kind]
    refuses(tmp_path / "model", forge(change, build()), match=match, factory=factory)


OLD = [("raw", name) for name in ("mask", "gaps", "packed", "clustered-gaps")]


@pytest.mark.parametrize("crc32", ["missing", None])
@pytest.mark.parametrize(("file", "name"), OLD)
def test_a_description_without_a_checksum_is_of_an_old_file(
    file: str, name: str, crc32: str | None
) -> None:
    """The file's hash vouches for it: the golden one of version 1 is such a file."""
    build, factory = FILES[file]
    change = claims(name, crc32=None) if crc32 is None else lacks(name, "crc32")
    assert digest(loaded(forge(change, build()), factory)) == digest(loaded(build(), factory))


def test_the_tables_name_tensors_that_are_there() -> None:
    assert raw_tensors().keys() >= {"clustered", "gaps", "packed", "dense", "brain", "flags"}
    assert coded_tensors().keys() >= {"grid", "indices", "mask", "values", "taps"}
