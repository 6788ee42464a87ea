"""A tensor <-> the entries that stand for it in the file."""

from typing import Any

import torch
from torch import Tensor

from compression.bits import pack_codes, pack_mask, unpack_codes, unpack_mask
from compression.errors import CheckpointError, CompressionError

_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
DTYPES = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (
        *(torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.bool),
        *(torch.int8, torch.uint8, torch.int16, torch.int32, torch.int64),
    )
}

Entries = dict[str, Tensor]


def encode(name: str, tensor: Tensor, *, num_bits: int | None) -> tuple[dict[str, Any], Entries]:
    """Return the description and the entries of a tensor, in its smallest lossless encoding.

    `num_bits` says that the tensor holds integer codes of so many bits.
    """
    dtype = str(tensor.dtype).removeprefix("torch.")
    if dtype not in DTYPES:
        raise CompressionError(f"{name}: {dtype} cannot be stored; choose {', '.join(DTYPES)}")
    about: dict[str, Any] = {"dtype": dtype, "shape": list(tensor.shape)}
    flat = tensor.detach().cpu().contiguous().view(-1)
    width = flat.element_size()
    # Zeros by bit pattern: -0.0 is a value to keep.
    present = flat.view(_INTEGERS[width]) != 0
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
    """Return the tensor that `about` describes; CheckpointError where the entries do not fit it.

    Nothing is allocated before the entries in hand show that the claimed shape is theirs.
    """
    try:
        shape, dtype = [int(size) for size in about["shape"]], DTYPES[about["dtype"]]
        if any(size < 0 for size in shape):
            raise CheckpointError(f"{name}: a shape cannot be negative, found {shape}")
        numel = 1
        for size in shape:
            numel *= size
        match about["encoding"]:
            case "dense":
                tensor = entries[name]
                if tensor.dtype != dtype or list(tensor.shape) != shape:
                    raise CheckpointError(
                        f"{name}: expected {dtype} {shape}, found {tensor.dtype} "
                        f"{list(tensor.shape)}"
                    )
                return tensor
            case "packed":
                codes = unpack_codes(
                    entries[f"{name}#codes"], num_bits=int(about["bits"]), numel=numel
                )
                return codes.view(shape)
            case "sparse":
                return _decode_sparse(name, entries, numel, dtype).view(shape)
        raise CheckpointError(f"{name}: unknown encoding {about['encoding']!r}")
    except CheckpointError:
        raise
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{name}: damaged description or entry ({error})") from error


def _decode_sparse(name: str, entries: Entries, numel: int, dtype: torch.dtype) -> Tensor:
    values = entries[f"{name}#values"]
    present = unpack_mask(entries[f"{name}#mask"], numel=numel)
    if values.ndim != 1 or values.dtype != dtype or len(values) != int(present.sum()):
        raise CheckpointError(
            f"{name}: expected {int(present.sum())} values of {dtype}, found {len(values)} of "
            f"{values.dtype}"
        )
    flat = torch.zeros(numel, dtype=dtype)
    flat[present] = values
    return flat
