"""Images that were decoded once: a file of their pixels, mapped into memory by every later run."""

import hashlib
import mmap
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from benchmarks.baseline.cache import evict, lock
from compression.atomic import write_atomically
from compression.paths import cache_folder

KEPT_BYTES = 20 * 2**30
"""Of decoded images, those used longest ago go first."""
_DIGEST = 32


def decoded(
    key: str, shape: tuple[int, int, int, int], decode: Callable[[], Iterable[Tensor]]
) -> Tensor:
    """Return images (N, C, H, W) as uint8 from the file of this key; one that is not whole is made.

    `decode` yields them (C, H, W) one after another: no more than one is in memory. Nothing is kept
    where it fails. CompressionError where the cache folder cannot be written.
    """
    path = cache_folder() / "images" / f"images-{key}.uint8"
    octets = shape[0] * shape[1] * shape[2] * shape[3]
    if not _is_whole(path, octets):
        with lock(path, "folder of images", "decoded"):
            if not _is_whole(path, octets):
                write_atomically(path, lambda file: _write(file, decode()))
                evict(path.parent, "images", max(KEPT_BYTES, octets + _DIGEST), path.suffix)
    with suppress(OSError):  # a folder that can only be read
        path.touch()  # used last
    return torch.from_file(str(path), size=octets, dtype=torch.uint8).view(shape)


def _write(file: BinaryIO, images: Iterable[Tensor]) -> None:
    digest = hashlib.sha256()
    for image in images:
        octets = image.numpy().data
        digest.update(octets)
        file.write(octets)
    file.write(digest.digest())


def _is_whole(path: Path, octets: int) -> bool:
    """Tell whether a file holds so many octets of pixels and their SHA-256; a missing one does not."""
    try:
        if path.stat().st_size != octets + _DIGEST:
            return False
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as whole:
            view = memoryview(whole)
            with view[:octets] as pixels, view[octets:] as digest, view:
                return hashlib.sha256(pixels).digest() == bytes(digest)
    except OSError:  # missing, or not to be read: what is made in its place says so
        return False
