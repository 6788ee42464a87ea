"""Files to damage, intact or forged with a right hash, and what every damaged one must meet."""

import io
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor, nn

from compression.errors import CheckpointError
from compression.storage import container, load, load_checkpoint, plan, save, streams
from compression.storage.encoding import encode
from tests.support.golden_tensors import RAW_BITS, coded_tensors, raw_tensors
from tests.support.storage_nets import Bag, Factory, digest, empty

Entries = dict[str, Tensor]
About = dict[str, Any]
Change = Callable[[Entries, About], object]


class Net(nn.Module):
    """A dense, a sparse and a tied tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 2)
        self.register_buffer("sparse", torch.zeros(20))
        self.tied = self.linear.bias


def net() -> nn.Module:
    torch.manual_seed(0)
    model = Net()
    model.get_buffer("sparse")[3:11] = torch.rand(8)  # so many that a mask is the smallest index
    return model


@contextmanager
def small_descriptions() -> Iterator[None]:
    """Choose encodings as if describing them took no bytes."""
    with (
        mock.patch.object(plan, "DESCRIPTION_BYTES", 0),
        mock.patch.object(streams, "CODED_BYTES", 0),
    ):
        yield


def saved(model: nn.Module, **options: Any) -> bytes:
    """Return the file of a model, short and yet in other encodings than the plain one."""
    with small_descriptions(), tempfile.TemporaryDirectory() as folder:
        save(model, Path(folder) / "model", **options)
        return (Path(folder) / "model").read_bytes()


@cache
def intact_bytes() -> bytes:
    """Return the file of net()."""
    return saved(net())


@cache
def coded_bytes() -> bytes:
    """Return the entropy-coded file of coded_tensors()."""
    return saved(Bag(coded_tensors()), entropy_coded=True)


@cache
def raw_bytes() -> bytes:
    """Return the file of raw_tensors(), whose codes take the bits that a structure would tell."""
    entries: Entries = {}
    about: About = {}
    with small_descriptions():
        for name, tensor in raw_tensors().items():
            about[name], added = encode(name, tensor, num_bits=RAW_BITS.get(name))
            entries |= added
    about["again"] = {"encoding": "alias", "of": "dense"}
    return pack(entries, {"structure": None, "tensors": about})


FILES: dict[str, tuple[Callable[[], bytes], Factory]] = {
    "net": (intact_bytes, Net),
    "raw": (raw_bytes, lambda: empty({**raw_tensors(), "again": raw_tensors()["dense"]})),
    "coded": (coded_bytes, lambda: empty(coded_tensors())),
}


def pack(entries: Entries, about: About) -> bytes:
    """Return the bytes of a file with its right hash."""
    file = io.BytesIO()
    container.write(file, entries, about)
    return file.getvalue()


def unpack(data: bytes) -> container.Content:
    """Return the content of a file of these bytes."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model"
        path.write_bytes(data)
        return container.read(path)


def loaded(data: bytes, factory: Factory) -> nn.Module:
    """Return the model in a file of these bytes."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model"
        path.write_bytes(data)
        return load(path, factory)


def forge(change: Change, data: bytes | None = None) -> bytes:
    """Return the file after a change of its entries and metadata, with its right hash."""
    entries, about, *_ = unpack(intact_bytes() if data is None else data)
    assert about is not None
    del about["version"], about["sha256"]
    change(entries, about)
    return pack(entries, about)


def refuses(
    path: Path, data: bytes, *, match: str | None = None, factory: Factory | None = Net
) -> None:
    """Assert that the readers raise CheckpointError, and that it names the file."""
    path.write_bytes(data)
    for read in (load, load_checkpoint) if factory else (load,):
        with pytest.raises(CheckpointError, match=match) as caught:
            read(path, factory)
        assert str(path) in str(caught.value)


def refuses_or_equals(path: Path, data: bytes, factory: Factory, expected: str) -> None:
    """Assert that load raises CheckpointError, or returns the model of this digest."""
    path.write_bytes(data)
    try:
        found = digest(load(path, factory))
    except CheckpointError as error:
        found = str(error)
    assert found == expected or found.startswith(str(path))
