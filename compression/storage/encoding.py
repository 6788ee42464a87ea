"""A tensor <-> the entries that stand for it in the file."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from compression.bits import pack_codes, pack_mask, unpack_codes, unpack_mask
from compression.errors import CheckpointError, UnsupportedTypeError

_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
DTYPES = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (
        *(torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.bool),
        *(torch.int8, torch.uint8, torch.int16, torch.int32, torch.int64),
    )
}

Entries = dict[str, Tensor]


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


def bit_patterns(tensor: Tensor) -> Tensor:
    """Return a tensor's elements, 1-dim, as integers of the same width."""
    return tensor.contiguous().view(-1).view(_INTEGERS[tensor.element_size()])


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


def encode(name: str, tensor: Tensor, *, num_bits: int | None) -> tuple[dict[str, Any], Entries]:
    """Return the description and the entries of a tensor, in its smallest lossless encoding.

    `num_bits` says that the tensor holds integer codes of so many bits.
    """
    dtype = str(tensor.dtype).removeprefix("torch.")
    about: dict[str, Any] = {"dtype": dtype, "shape": list(tensor.shape)}
    flat = tensor.detach().cpu().contiguous().view(-1)
    width = flat.element_size()
    # Zeros by bit pattern: -0.0 is a value to keep.
    present = bit_patterns(flat) != 0
    sizes = {
        "dense": flat.numel() * width,
        "sparse": int(present.sum()) * width + -(-flat.numel() // 8),
    }
    if num_bits is not None:
        sizes["packed"] = -(-flat.numel() * num_bits // 8)
    encoding = min(sizes, key=lambda key: sizes[key])  # the first, plainest one on a tie
    about["encoding"] = encoding
    if encoding == "sparse":
        entries = {f"{name}#mask": pack_mask(present), f"{name}#values": flat[present]}
    elif encoding == "packed" and num_bits is not None:
        about["bits"] = num_bits
        entries = {f"{name}#codes": pack_codes(flat, num_bits)}
    else:
        entries = {name: flat.view(tensor.shape)}
    return about, {key: entry.clone() for key, entry in entries.items()}


def decode(name: str, about: dict[str, Any], entries: Entries) -> Tensor:
    """Take out of `entries` the tensor that `about` describes; CheckpointError where they differ.

    Nothing is allocated before the entries in hand show that the claimed shape is theirs.
    """
    try:
        shape, dtype = [int(size) for size in about["shape"]], DTYPES[about["dtype"]]
        if any(size < 0 for size in shape):
            raise CheckpointError(f"{name}: a shape cannot be negative, found {shape}")
        numel = math.prod(shape)
        match about["encoding"]:
            case "dense":
                tensor = entries.pop(name)
            case "packed":
                codes = entries.pop(f"{name}#codes")
                tensor = unpack_codes(codes, num_bits=int(about["bits"]), numel=numel).view(shape)
            case "sparse":
                tensor = _decode_sparse(name, entries, numel, dtype).view(shape)
            case unknown:
                raise CheckpointError(f"{name}: unknown encoding {unknown!r}")
    except CheckpointError:
        raise
    except (KeyError, TypeError, ValueError, OverflowError, RuntimeError) as error:
        raise CheckpointError(f"{name}: damaged description or entry ({error!r})") from error
    if tensor.dtype != dtype or list(tensor.shape) != shape:
        raise CheckpointError(
            f"{name}: expected {dtype} {shape}, found {tensor.dtype} {list(tensor.shape)}"
        )
    return tensor


def _decode_sparse(name: str, entries: Entries, numel: int, dtype: torch.dtype) -> Tensor:
    values = entries.pop(f"{name}#values")
    present = unpack_mask(entries.pop(f"{name}#mask"), numel=numel)
    if values.ndim != 1 or values.dtype != dtype or len(values) != int(present.sum()):
        raise CheckpointError(
            f"{name}: expected {int(present.sum())} values of {dtype}, found {values.dtype} of "
            f"shape {tuple(values.shape)}"
        )
    flat = torch.zeros(numel, dtype=dtype)
    flat[present] = values
    return flat
