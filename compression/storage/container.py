"""The safetensors container: its header checked, its bytes hashed, before a tensor is made."""

import hashlib
import json
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor

from compression.errors import CheckpointError, CompressionError

KEY = "dnn-compression"
VERSION = 1
_ZEROS = "0" * 64
_OURS = f'{{"version":{VERSION},"sha256":'
_LENGTH_BYTES = 8  # of the header, little-endian
# safetensors' own limit; a header is some 100 bytes a tensor.
_MAX_HEADER_BYTES = 100_000_000


def pack(tensors: dict[str, Tensor], about: dict[str, Any]) -> bytes:
    """Return the file's bytes, the hash of all of them among them."""
    if "__metadata__" in tensors:
        raise CompressionError("__metadata__: safetensors reserves this name; rename the tensor")
    text = json.dumps({"version": VERSION, "sha256": _ZEROS, **about}, separators=(",", ":"))
    data = bytearray(safetensors.torch.save(tensors, {KEY: text}))
    position = data.index(_ZEROS.encode())
    data[position : position + 64] = hashlib.sha256(data).hexdigest().encode()
    return bytes(data)


def unpack(path: Path, data: bytes) -> tuple[dict[str, Tensor], dict[str, Any] | None]:
    """Return the file's entries and our metadata, None where the file is plain safetensors.

    Raises CheckpointError for anything but an undamaged file.
    """
    header = read_header(path, data)
    metadata = header.get("__metadata__", {})
    text = metadata.get(KEY) if isinstance(metadata, dict) else None
    if text is None and _OURS in str(metadata):
        raise CheckpointError(f"{path}: damaged metadata (no {KEY})")  # never taken for plain
    about = None if text is None else _check(path, data, text)
    try:
        return safetensors.torch.load(data), about
    except (safetensors.SafetensorError, KeyError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{path}: damaged safetensors file ({error})") from error


def read_header(path: Path, data: bytes) -> dict[str, Any]:
    """Return the container's JSON header."""
    end = header_bytes(data)
    if len(data) < _LENGTH_BYTES or end > min(len(data), _MAX_HEADER_BYTES):
        raise CheckpointError(
            f"{path}: expected a safetensors file or a zip of torch.save, found neither, or one "
            f"truncated: {len(data)} bytes whose header would take {end}"
        )
    try:
        header = json.loads(data[_LENGTH_BYTES:end], object_pairs_hook=_without_twins)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: the header is not JSON ({error})") from error
    if not isinstance(header, dict):
        raise CheckpointError(f"{path}: the header is no JSON object")
    return header


def header_bytes(data: bytes) -> int:
    """Return the bytes before the tensors."""
    return _LENGTH_BYTES + int.from_bytes(data[:_LENGTH_BYTES], "little")


def _check(path: Path, data: bytes, text: Any) -> dict[str, Any]:
    try:
        about = json.loads(text, object_pairs_hook=_without_twins)
        version, digest = about["version"], about["sha256"]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise CheckpointError(f"{path}: damaged metadata ({error})") from error
    if not isinstance(digest, str) or len(digest) != 64 or data.count(digest.encode()) != 1:
        raise CheckpointError(f"{path}: damaged metadata (no SHA-256)")
    if hashlib.sha256(data.replace(digest.encode(), _ZEROS.encode())).hexdigest() != digest:
        raise CheckpointError(f"{path}: damaged, its SHA-256 does not match; copy the file again")
    if version != VERSION:
        raise CheckpointError(
            f"{path}: version {version!r} of the format, this package reads {VERSION}; update it"
        )
    tensors = about.get("tensors")
    if not isinstance(tensors, dict) or not all(isinstance(d, dict) for d in tensors.values()):
        raise CheckpointError(f"{path}: damaged metadata (tensors)")
    return dict(about)


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = [key for key, _ in pairs]
    if len(set(keys)) != len(keys):
        raise ValueError("a key occurs twice")
    return dict(pairs)
