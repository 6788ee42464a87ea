"""load_checkpoint on what people save around a state dict, and on files that are none."""

import gzip
import io
import json
import lzma
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from compression.errors import CheckpointError
from compression.storage import contents, load, load_checkpoint
from tests.support.storage_nets import Small, Versioned, digest

State = dict[str, Tensor]


def network() -> nn.Module:
    torch.manual_seed(1)
    return Small().eval()


def zipped(value: object, **options: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, **options)
    return buffer.getvalue()


def state(prefix: str = "") -> State:
    return {f"{prefix}{name}": tensor for name, tensor in network().state_dict().items()}


ACCEPTED: dict[str, Callable[[], bytes]] = {
    "DataParallel": lambda: zipped(nn.DataParallel(network()).state_dict()),
    "torch.compile": lambda: zipped(state("_orig_mod.")),
    "both": lambda: zipped(state("module._orig_mod.")),
    "both, the other way": lambda: zipped(state("_orig_mod.module.")),
    "a compiled child": lambda: zipped(
        {n.replace("conv.", "conv._orig_mod."): t for n, t in state().items()}
    ),
    "safetensors": lambda: safetensors.torch.save(state("module._orig_mod.")),
    "beside a name": lambda: zipped(
        {"model": "resnet", "epoch": 3, "state_dict": state("module.")}
    ),
    "within": lambda: zipped({"epoch": 3, "model": {"state_dict": state("module.")}}),
    "average alone": lambda: zipped({"model_ema": state(), "optimizer": {"state": {}}}),
}


def under(key: str) -> Callable[[], bytes]:
    return lambda: zipped({key: network().state_dict(), "optimizer": {"state": {}}})


for usual in ("state_dict", "model_state_dict", "model", "net", "network", "module", "weights"):
    ACCEPTED[usual] = under(usual)


@pytest.mark.parametrize("kind", ACCEPTED)
def test_the_state_dict_is_found(kind: str, tmp_path: Path) -> None:
    (tmp_path / "model.pt").write_bytes(ACCEPTED[kind]())
    assert digest(load_checkpoint(tmp_path / "model.pt", Small)) == digest(network())


def test_names_stay_where_the_network_has_them(tmp_path: Path) -> None:
    (tmp_path / "model.pt").write_bytes(zipped(state("module.")))
    loaded = load_checkpoint(tmp_path / "model.pt", lambda: nn.DataParallel(Small()))
    assert digest(loaded) == digest(nn.DataParallel(network()))


def versioned() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(Versioned(2, 2))


def test_versions_come_with_the_state_dict(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    for kept in (versioned().state_dict(), nn.DataParallel(versioned()).state_dict()):
        path.write_bytes(zipped(kept))
        assert digest(load_checkpoint(path, versioned)) == digest(versioned())
    path.write_bytes(zipped(dict(versioned().state_dict())))  # notes none: it is up to date
    assert digest(load_checkpoint(path, versioned)) == digest(versioned())
    old = versioned().state_dict()
    old._metadata["0"]["version"] = 4  # type: ignore[attr-defined]
    path.write_bytes(zipped(old))
    with pytest.raises(CheckpointError, match="own load_state_dict refuses the weights: version 4"):
        load_checkpoint(path, versioned)


def tar() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("model.pt"))
    return buffer.getvalue()


def archive_of(*names: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in names:
            archive.writestr(name, b"")
    return buffer.getvalue()


def script() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in ("data.pkl", "constants.pkl", "code/__torch__.py"):
            archive.writestr(f"net/{name}", b"")
    return buffer.getvalue()


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
PAGE = b"\n<!DOCTYPE html>\n<html><body>Sign in</body></html>"
INDEX = json.dumps({"metadata": {}, "weight_map": {"conv.weight": "model-00001.safetensors"}})
NUMBERS = io.BytesIO()
np.save(NUMBERS, np.ones(3))

# What is in the file, and what the message says: what it is, and what to do.
FOREIGN: dict[str, tuple[bytes, str]] = {
    "git lfs": (LFS, "a Git LFS pointer, .*git lfs pull"),
    "a page": (PAGE, "an HTML page, .*download it again"),
    "an error": (b'<?xml version="1.0"?><Error/>', "an XML or HTML text, .*download it again"),
    "old torch": (
        zipped(state(), _use_new_zipfile_serialization=False),
        "an old torch file .*before 1.6.*torch.save",
    ),
    "an index": (INDEX.encode(), "the index of a model in several safetensors files"),
    "json": (b'{"epoch": 3, "loss": 0.1}', "a JSON text"),
    "onnx": (
        b"\x08\x0a\x12\x07pytorch\x1a\x052.1.0:\xf1\x03",
        "a protobuf .an ONNX or TensorFlow model",
    ),
    "tflite": (b"\x1c\0\0\0TFL3\x14\0 \0", "a TensorFlow Lite model"),
    "keras": (b"\x89HDF\r\n\x1a\n" + bytes(90), "an HDF5 file .Keras"),
    "numpy": (NUMBERS.getvalue(), "a numpy array"),
    "gguf": (b"GGUF\x03\0\0\0" + bytes(90), "a GGUF file"),
    "gzip": (gzip.compress(b"x" * 99), "a gzip archive; unpack it"),
    "xz": (lzma.compress(b"x" * 99), "an xz archive; unpack it"),
    "tar": (tar(), "a tar archive; unpack it"),
    "text": (b"epoch,loss\n1,2.30\n" * 9, "a text"),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_a_foreign_file_is_named_for_what_it_is(kind: str, tmp_path: Path) -> None:
    data, match = FOREIGN[kind]
    path = tmp_path / "model.pt"
    path.write_bytes(data)
    for read in (lambda: load_checkpoint(path, Small), lambda: load(path, Small)):
        with pytest.raises(CheckpointError, match=f"expected a safetensors file .*found {match}"):
            read()
    with pytest.raises(CheckpointError, match=match):
        contents(path)


ZIPS: dict[str, tuple[Callable[[], bytes], str]] = {
    "TorchScript": (script, r"a TorchScript archive; .*torch\.jit\.load\(path\)"),
    "keras": (lambda: archive_of("config.json", "model.weights.h5"), "a Keras model"),
    "npz": (lambda: archive_of("conv.npy", "head.npy"), "numpy arrays"),
    "files": (lambda: archive_of("repo/model.pt"), "a zip archive that torch.save did not write"),
    "two networks": (
        lambda: zipped({"model": state(), "model_ema": state(), "epoch": 3}),
        "several networks, under 'model', 'model_ema'; save the state dict that you mean alone",
    ),
    "no usual key": (lambda: zipped({"encoder": state()}), "'encoder': dict"),
    "keys within keys": (lambda: zipped({"model": {"model": {"model": {"model": {}}}}}), "found"),
    "one name twice": (
        lambda: zipped({**state(), "conv._orig_mod.weight": torch.ones(1)}),
        "names that differ by '_orig_mod.' alone",
    ),
    "half a prefix": (
        lambda: zipped({**state("module."), "head.bias": torch.ones(3)}),
        "not expected: module.conv.weight",
    ),
}


@pytest.mark.parametrize("kind", ZIPS)
def test_another_zip_is_named_for_what_it_is(kind: str, tmp_path: Path) -> None:
    make, match = ZIPS[kind]
    (tmp_path / "model.pt").write_bytes(make())
    with pytest.raises(CheckpointError, match=match):
        load_checkpoint(tmp_path / "model.pt", Small)


def test_load_sends_a_torch_file_to_load_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "model.pt").write_bytes(zipped(state()))
    with pytest.raises(CheckpointError, match=r"a zip of torch\.save; use load_checkpoint"):
        load(tmp_path / "model.pt", Small)


def test_the_class_that_a_file_would_run_is_named(tmp_path: Path) -> None:
    (tmp_path / "model.pt").write_bytes(zipped({"model": state(), "args": Path("x")}))
    with pytest.raises(CheckpointError, match=r"holds more than tensors .*: pathlib\.\w+"):
        load_checkpoint(tmp_path / "model.pt", Small)


def edited(change: Callable[[zipfile.ZipInfo], object]) -> bytes:
    """Return a torch file after a change of what its directory says of the first numbers."""
    buffer = io.BytesIO()
    source = zipfile.ZipFile(io.BytesIO(zipped(state())))
    with source, zipfile.ZipFile(buffer, "w") as target:
        for entry in source.infolist():
            target.writestr(entry.filename, source.read(entry))
        change(next(e for e in target.filelist if e.filename.endswith("/data/0")))
    return buffer.getvalue()


def folder(entry: zipfile.ZipInfo) -> None:
    entry.external_attr |= 0x10


def moved(entry: zipfile.ZipInfo) -> None:
    entry.header_offset = 0


def longer(entry: zipfile.ZipInfo) -> None:
    entry.file_size = entry.compress_size = 10**6


EDITS = {
    "folder": (folder, "says it is a folder"),
    "moved": (moved, "differ"),
    "longer": (longer, ""),
}


@pytest.mark.parametrize("kind", EDITS)
def test_a_directory_that_lies_gives_no_memory_that_nobody_wrote(kind: str, tmp_path: Path) -> None:
    change, match = EDITS[kind]
    (tmp_path / "model.pt").write_bytes(edited(change))
    with pytest.raises(CheckpointError, match=f"damaged.*{match}"):
        load_checkpoint(tmp_path / "model.pt", Small)
    (tmp_path / "model.pt").write_bytes(edited(lambda _: None))
    assert digest(load_checkpoint(tmp_path / "model.pt", Small)) == digest(network())


def test_a_flip_in_the_header_of_safetensors_is_no_foreign_error(tmp_path: Path) -> None:
    """In the values nobody can tell: the format has no checksum."""
    torch.manual_seed(2)
    expected = nn.Linear(2, 2)
    data = safetensors.torch.save(expected.state_dict(), {"format": "pt"})
    header = 8 + int.from_bytes(data[:8], "little")
    for bit in range(0, 8 * header, 3):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        (tmp_path / "model").write_bytes(damaged)
        try:
            loaded = load_checkpoint(tmp_path / "model", lambda: nn.Linear(2, 2))
        except CheckpointError:
            continue
        assert digest(loaded) == digest(expected), bit
