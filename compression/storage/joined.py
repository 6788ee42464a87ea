"""Small tensors coded as one: biases and batch norms are too short for a model each."""

import math
import zlib
from typing import Any

import torch
from torch import Tensor

from compression.errors import CheckpointError
from compression.storage.container import Entries, check_shape, octets
from compression.storage.encoding import DTYPES, Description, damage_error
from compression.storage.streams import Reader, Writer, coded_streams

_MAX_ELEMENTS = 4096


def is_small(tensor: Tensor) -> bool:
    """Tell whether a tensor is better coded among others: a vector or a number, no codes."""
    return tensor.ndim < 2 and tensor.numel() < _MAX_ELEMENTS and tensor.dtype != torch.int8


def join(tensors: dict[str, Tensor]) -> tuple[dict[str, Description], Entries]:
    """Return descriptions by dtype, and the entries, of small tensors coded as one per dtype."""
    groups: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        dtype = str(tensor.dtype).removeprefix("torch.")
        groups.setdefault(dtype, {})[name] = tensor.detach().cpu()
    about: dict[str, Description] = {}
    entries: Entries = {}
    for dtype, group in groups.items():
        flat = torch.cat([tensor.reshape(-1) for tensor in group.values()])
        writer = Writer(dtype, entropy_coded=True)
        writer.values(flat)
        shapes = {name: list(tensor.shape) for name, tensor in group.items()}
        about[dtype] = {"shapes": shapes, "crc32": zlib.crc32(octets(flat)), "coded": writer.coded}
        entries |= writer.entries
    return about, entries


def joined_kinds(about: dict[str, Description]) -> dict[str, str]:
    """Return the dtype and shape that the descriptions claim of each tensor."""
    kinds: dict[str, str] = {}
    for dtype, group in _groups(about):
        for name, shape in group["shapes"].items():
            if name in kinds:
                raise CheckpointError(f"{name}: described twice among small tensors")
            kinds[name] = f"{DTYPES[dtype]} {tuple(shape)}"
    return kinds


def split(about: dict[str, Description], entries: Entries) -> dict[str, Tensor]:
    """Take the tensors that `join` described out of `entries`; CheckpointError where they differ.

    It allocates what the descriptions claim: compare joined_kinds with the network first.
    """
    tensors: dict[str, Tensor] = {}
    for dtype, group in _groups(about):
        sizes = [math.prod(shape) for shape in group["shapes"].values()]
        names = f"the small tensors of {dtype} ({', '.join(list(group['shapes'])[:3])}, ...)"
        try:
            reader = Reader(dtype, entries, coded_streams(group, None, "dense"))
            flat = reader.values(sum(sizes), DTYPES[dtype])
        except CheckpointError as error:
            raise CheckpointError(f"{names}: {error}") from error
        except (KeyError, TypeError, ValueError, OverflowError, RuntimeError) as error:
            raise damage_error(names, error) from error
        if zlib.crc32(octets(flat)) != group["crc32"]:
            raise CheckpointError(f"{names}: damaged, the CRC-32 does not match")
        for (name, shape), part in zip(group["shapes"].items(), flat.split(sizes), strict=True):
            tensors[name] = part.clone().view(shape)
    return tensors


def _groups(about: Any) -> list[tuple[str, dict[str, Any]]]:
    """Return the groups by dtype, each of them with shapes of whole numbers from 0."""
    try:
        for dtype, group in about.items():
            for shape in group["shapes"].values():
                check_shape(shape)
            if dtype not in DTYPES or "crc32" not in group:
                raise CheckpointError(f"{dtype}: damaged description of small tensors")
        return list(about.items())
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise damage_error("small tensors", error) from error
