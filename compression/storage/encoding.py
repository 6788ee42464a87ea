"""A tensor <-> the entries that stand for it in the file, lossless in every encoding."""

import math
import zlib
from typing import Any

import torch
from torch import Tensor, nn

from compression.errors import CheckpointError, UnsupportedTypeError
from compression.storage.codebook import look_up
from compression.storage.container import DTYPES as CONTAINED
from compression.storage.container import Entries, check_shape, octets
from compression.storage.plan import bit_patterns, choose, without_zero
from compression.storage.streams import Reader, Writer, coded_streams

DTYPES = {str(dtype).removeprefix("torch."): dtype for dtype in CONTAINED.values()}

Description = dict[str, Any]
About = int | Description
"""What the file says of a tensor: of a plain dense one, its CRC-32 alone."""


def check_storable(name: str, tensor: Any) -> None:
    """Refuse, by name, what has no plain bytes to store; any bit pattern may be in them."""
    if not isinstance(tensor, Tensor) or type(tensor) not in (Tensor, nn.Parameter, nn.Buffer):
        found = type(tensor).__name__
    elif tensor.is_meta or tensor.layout != torch.strided:
        found = "a meta tensor" if tensor.is_meta else str(tensor.layout)
    elif tensor.dtype not in DTYPES.values():
        found = str(tensor.dtype)
    else:
        return
    raise UnsupportedTypeError(
        f"{name}: expected a plain dense tensor of {', '.join(DTYPES)}, found {found}"
    )


def same_bits(left: Tensor, right: Tensor) -> bool:
    """Tell whether two tensors are equal to the bit: -0.0 is not 0.0, a NaN equals itself."""
    return (
        left.dtype == right.dtype
        and left.shape == right.shape
        and torch.equal(bit_patterns(left), bit_patterns(right))
    )


def memory_of(name: str, tensor: Tensor) -> tuple[Any, ...]:
    """Return what two names share when they are tied: the same view of the same memory."""
    if not tensor.numel():
        return (name,)  # no memory to share
    return (tensor.device, tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride())


def kind_of(tensor: Tensor) -> str:
    """Name a tensor's dtype and shape."""
    return f"{tensor.dtype} {tuple(tensor.shape)}"


def encode(
    name: str, tensor: Tensor, *, num_bits: int | None, entropy_coded: bool = False
) -> tuple[About, Entries]:
    """Return the description and the entries of a tensor, in its smallest lossless encoding.

    `num_bits` says that the tensor holds integer codes of so many bits. Entries may be views of it.
    """
    # One element may have any stride and be contiguous.
    flat = whole = (
        tensor.detach().cpu().resolve_neg().contiguous().as_strided((tensor.numel(),), (1,))
    )
    checksum = zlib.crc32(octets(flat))
    plan = choose(flat, num_bits, entropy_coded=entropy_coded)
    about: dict[str, Any] = {"encoding": plan.values}
    writer, shape = Writer(name, entropy_coded), list(tensor.shape)
    if plan.where is not None:
        about = {"encoding": "sparse", "index": plan.where, "values": plan.values}
        writer.mask(plan.present) if plan.where == "mask" else writer.gaps(plan.present)
        flat, shape = flat[plan.present], []
    if plan.values == "packed":
        about["bits"] = plan.num_bits
        writer.codes(flat, plan.num_bits, shape)
    elif plan.values == "clustered" and plan.shared is not None:
        codebook, indices = plan.shared if plan.where is None else without_zero(*plan.shared)
        writer.codebook(codebook.view(flat.dtype))
        writer.indices(indices, len(codebook), shape)
    else:
        writer.values(flat)
    if plan.where is None and plan.values == "dense" and not writer.coded:
        return checksum, {name: whole.view(tensor.shape)}
    dtype = str(tensor.dtype).removeprefix("torch.")
    about |= {"dtype": dtype, "shape": list(tensor.shape), "crc32": checksum}
    return about | ({"coded": writer.coded} if writer.coded else {}), writer.entries


def claimed_kind(name: str, about: About, entries: Entries) -> str:
    """Name the dtype and shape that a description claims, before anything is decoded."""
    try:
        if isinstance(about, int):
            return kind_of(entries[name])
        return f"{DTYPES[about['dtype']]} {tuple(check_shape(about['shape']))}"
    except (KeyError, TypeError, ValueError) as error:
        raise damage_error(name, error) from error


def decode(name: str, about: About, entries: Entries) -> Tensor:
    """Take out of `entries` the tensor that `about` describes; CheckpointError where they differ.

    It allocates what the description claims: compare claimed_kind with the network first.
    """
    try:
        tensor = entries.pop(name) if isinstance(about, int) else _decode(name, about, entries)
        checksum = about if isinstance(about, int) else about.get("crc32")
    except CheckpointError as error:
        raise CheckpointError(f"{name}: {error}") from error
    except (KeyError, TypeError, ValueError, OverflowError, RuntimeError) as error:
        raise damage_error(name, error) from error
    if tensor.dtype == torch.bool and (tensor.view(torch.uint8) > 1).any():
        raise CheckpointError(f"{name}: a bool is 0 or 1")
    if checksum is None and not isinstance(about, int) and about.get("coded"):
        raise CheckpointError(f"{name}: entropy-coded without a CRC-32")
    if checksum is not None and zlib.crc32(octets(tensor)) != checksum:
        raise CheckpointError(f"{name}: damaged, its CRC-32 does not match")
    return tensor


def _decode(name: str, about: dict[str, Any], entries: Entries) -> Tensor:
    dtype, whole = DTYPES[about["dtype"]], check_shape(about["shape"])
    numel, sparse = math.prod(whole), about["encoding"] == "sparse"
    values = about.get("values", "dense") if sparse else about["encoding"]
    index = about.get("index", "mask") if sparse else None
    reader = Reader(name, entries, coded_streams(about, index, values))
    if index is None and values == "dense" and not reader.coded:
        tensor = entries.pop(name)
        if (tensor.dtype, list(tensor.shape)) != (dtype, whole):
            raise CheckpointError(f"expected {dtype} {whole}, found {kind_of(tensor)}")
        return tensor
    present, count, shape = None, numel, whole
    if index is not None:
        present = reader.gaps(numel) if index == "gaps" else reader.mask(numel)
        count, shape = int(present.sum()), []
    match values:
        case "dense":
            flat = reader.values(count, dtype)
        case "packed":
            flat = reader.codes(about["bits"], count, shape)
        case "clustered":
            codebook = reader.codebook(dtype)
            flat = look_up(codebook, reader.indices(len(codebook), count, shape))
        case unknown:
            raise CheckpointError(f"unknown encoding {unknown!r}")
    if flat.dtype != dtype:
        raise CheckpointError(f"expected {dtype} {whole}, found {flat.dtype}")
    if present is None:
        return flat.view(whole)
    # As integers: of a single number torch would make a scalar, and of its NaN another one.
    bits = torch.zeros(numel, dtype=bit_patterns(flat).dtype)
    bits[present] = bit_patterns(flat)
    return bits.view(dtype).view(whole)


def damage_error(name: str, error: Exception) -> CheckpointError:
    """Return what to raise where a description or an entry is not what it should be."""
    return CheckpointError(f"{name}: damaged description or entry ({error!r})")
