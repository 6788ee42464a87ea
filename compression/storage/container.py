"""The safetensors container, read and written as a stream: no second copy of the tensors in memory.

Its specification is 8 bytes of header length, little-endian; a JSON header; the tensors' bytes one
after the other. The library of that name holds a file whole while it reads or writes it; that its
files and ours are the same is tested against it.
"""

import hashlib
import json
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import torch
from torch import Tensor

from compression.checks import is_whole
from compression.errors import CheckpointError, CompressionError
from compression.storage.formats import HEAD_BYTES, foreign_format

KEY = "dnn-compression"
VERSION = 1
_ZEROS = "0" * 64
_OURS = f'{{"version":{VERSION},"sha256":'
_LENGTH_BYTES = 8
# Some 20,000 tensors; what json makes of a hostile header stays far below a gigabyte.
_MAX_HEADER_BYTES = 2**22
_ALIGNMENT = 8
_MAX_DIMS = 64  # of torch's tensors
DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8,
    "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip
_CODES = {dtype: code for code, dtype in DTYPES.items()}

Entries = dict[str, Tensor]


class Content(NamedTuple):
    """A file's entries, our metadata (None in plain safetensors), and whether its hash is right."""

    entries: Entries
    about: dict[str, Any] | None
    intact: bool
    header_bytes: int


def write(file: BinaryIO, entries: Entries, about: dict[str, Any]) -> int:
    """Write the container to a seekable file, the hash of all its bytes among them; return its size.

    Entries are contiguous and on the CPU.
    """
    if "__metadata__" in entries:
        raise CompressionError("__metadata__: safetensors reserves this name; rename the tensor")
    # Wide types first: each is then aligned to its own width.
    order = sorted(entries.items(), key=lambda item: (-item[1].element_size(), item[0]))
    text = json.dumps({"version": VERSION, "sha256": _ZEROS, **about}, separators=(",", ":"))
    header = _header(order, {KEY: text})
    position = header.index(_ZEROS.encode())
    digest = hashlib.sha256()
    size = 0
    parts: list[bytes | memoryview] = [header, *(octets(tensor) for _, tensor in order)]
    for part in parts:
        digest.update(part)
        size += file.write(part)
    file.seek(position)
    file.write(digest.hexdigest().encode())
    file.seek(size)
    return size


def _header(order: Iterable[tuple[str, Tensor]], metadata: dict[str, str]) -> bytes:
    fields: dict[str, Any] = {"__metadata__": metadata}
    end = 0
    for name, tensor in order:
        start, end = end, end + tensor.numel() * tensor.element_size()
        fields[name] = {
            "dtype": _CODES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(fields, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    if len(text) > _MAX_HEADER_BYTES:
        raise CompressionError(
            f"the names of the tensors take {len(text)} bytes, more than {_MAX_HEADER_BYTES}"
        )
    return len(text).to_bytes(_LENGTH_BYTES, "little") + text


def octets(tensor: Tensor) -> memoryview:
    """Return the bytes of a contiguous tensor on the CPU, as they lie in memory."""
    if not tensor.numel():  # whose strides may be anything
        return memoryview(b"")
    return tensor.detach().view(-1).view(torch.uint8).numpy().data


def read(path: Path | str) -> Content:
    """Return the content of a safetensors file.

    Nothing is allocated that the file does not have the bytes for. Raises CheckpointError for what
    is no safetensors file, or one of a newer version; `intact` is false for damaged bytes.
    """
    path = check_readable(path)
    try:
        with path.open("rb") as file:
            return _read(path, file, path.stat().st_size)
    except OSError as error:
        raise CheckpointError(f"{path}: not read, {error}") from error


def check_readable(path: Path | str) -> Path:
    """Return `path`; CheckpointError where there is no file to read."""
    if not isinstance(path, str | Path):
        raise CheckpointError(
            f"expected the path of a model file (str or pathlib.Path), found {type(path).__name__}"
        )
    path = Path(path)
    try:
        if path.exists() and not path.is_file() and not path.is_dir():  # opening could block
            raise CheckpointError(f"{path}: expected a model file, found a device or pipe")
        with path.open("rb"):
            return path
    except (OSError, ValueError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{path}: expected a model file, {error}") from error


def _read(path: Path, file: BinaryIO, size: int) -> Content:
    if not size:
        raise CheckpointError(f"{path}: expected a model file, found an empty one")
    head = file.read(_LENGTH_BYTES)
    end = _LENGTH_BYTES + int.from_bytes(head, "little")
    if len(head) < _LENGTH_BYTES or end > size or end > _MAX_HEADER_BYTES + _LENGTH_BYTES:
        found = foreign_format(head + file.read(HEAD_BYTES))
        found = found or f"neither, or one truncated: {size} bytes whose header would take {end}"
        raise CheckpointError(
            f"{path}: expected a safetensors file or a zip of torch.save, found {found}"
        )
    head += file.read(end - _LENGTH_BYTES)
    header = _object(path, head[_LENGTH_BYTES:], "header")
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict):
        raise CheckpointError(f"{path}: damaged metadata (a {type(metadata).__name__})")
    text = metadata.get(KEY)
    if text is None and _OURS in str(metadata):
        raise CheckpointError(f"{path}: damaged metadata (no {KEY})")  # never taken for plain
    about = None if text is None else _about(path, text)
    expected = None if about is None else about["sha256"]
    if expected is not None and head.count(expected.encode()) != 1:
        raise CheckpointError(f"{path}: damaged metadata (no SHA-256)")
    digest = hashlib.sha256(head.replace(expected.encode(), _ZEROS.encode()) if expected else head)
    entries: Entries = {}
    for name, tensor in _empty_tensors(path, header, size - end):
        entries[name] = tensor
        part = octets(tensor)
        if tensor.numel() and file.readinto(part) != len(part):  # type: ignore[attr-defined]
            raise CheckpointError(f"{path}: truncated while it was read, at {name}")
        digest.update(part)
    intact = expected is None or digest.hexdigest() == expected
    return Content(entries, about, intact, end)


def _empty_tensors(path: Path, header: dict[str, Any], room: int) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors that the header tells of, in the order of their bytes, still empty."""
    found = []
    for name, field in header.items():
        try:
            shape = check_shape(field["shape"])
            start, end = check_shape(field["data_offsets"])
            if end - start != math.prod(shape) * DTYPES[field["dtype"]].itemsize or end > room:
                raise ValueError(f"{shape} of {field['dtype']} in bytes {start} to {end} of {room}")
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"{path}: damaged header, {name}: {error!r}") from error
        found.append((start, end, name, shape, DTYPES[field["dtype"]]))
    position = 0
    found.sort(key=lambda entry: entry[:2])
    for start, end, name, _, _ in found:
        if start != position:
            raise CheckpointError(
                f"{path}: damaged header, {name} begins at {start}, expected {position}"
            )
        position = end
    if position != room:
        raise CheckpointError(f"{path}: expected {position} bytes of tensors, found {room}")
    for _, _, name, shape, dtype in found:
        try:
            yield name, torch.empty(shape, dtype=dtype)
        except RuntimeError as error:  # a shape of no elements whose other sizes overflow
            raise CheckpointError(f"{path}: damaged header, {name}: {error}") from error


def check_shape(shape: Any) -> list[int]:
    """Return a shape that a file claims; ValueError unless it is a list of at most 64 sizes."""
    if not isinstance(shape, list) or len(shape) > _MAX_DIMS:
        raise ValueError(f"expected a list of at most {_MAX_DIMS} sizes")
    if any(not is_whole(size) or not 0 <= size < 2**63 for size in shape):
        raise ValueError(f"sizes are whole numbers from 0, found {shape}")
    return shape


def _about(path: Path, text: Any) -> dict[str, Any]:
    if not isinstance(text, str):
        raise CheckpointError(f"{path}: damaged metadata (a {type(text).__name__})")
    about = _object(path, text, "metadata")
    version, digest, tensors = (about.get(key) for key in ("version", "sha256", "tensors"))
    if not isinstance(digest, str) or len(digest) != 64 or not digest.isascii():
        raise CheckpointError(f"{path}: damaged metadata (no SHA-256)")
    if version != VERSION:
        raise CheckpointError(
            f"{path}: version {version!r} of the format, this package reads {VERSION}; update it"
        )
    if not isinstance(tensors, dict):
        raise CheckpointError(f"{path}: damaged metadata (tensors)")
    return about


def _object(path: Path, text: bytes | str, what: str) -> dict[str, Any]:
    try:
        found = json.loads(text, object_pairs_hook=_without_twins)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: the {what} is not JSON ({error})") from error
    if not isinstance(found, dict):
        raise CheckpointError(f"{path}: the {what} is no JSON object")
    return found


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = [key for key, _ in pairs]
    if len(set(keys)) != len(keys):
        raise ValueError("a key occurs twice")
    return dict(pairs)
