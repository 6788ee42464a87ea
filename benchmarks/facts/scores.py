"""The values of a metric, one per example, as text: 1 or 16 bits each."""

import base64
import struct
import zlib

import numpy as np
import torch
from torch import Tensor

HEAD = struct.Struct("<Bdd")
"""Bits per value, the least value and the largest."""
STEPS = 2**16 - 1


def encode_scores(values: Tensor) -> str:
    """Return values (N,), numbers or bools, as text: packed, deflated, base64.

    A number is kept to 1 / 131,070 of the distance from the least to the largest, a bool exactly.

    >>> decode_scores(encode_scores(torch.tensor([0.0, 0.25, 1.0])), 3)
    tensor([0.0000, 0.2500, 1.0000], dtype=torch.float64)
    """
    array = values.cpu().double().numpy()
    least, largest = (float(array.min()), float(array.max())) if len(array) else (0.0, 0.0)
    if values.dtype == torch.bool:
        head, packed = HEAD.pack(1, 0.0, 1.0), np.packbits(array.astype(bool), bitorder="little")
    else:
        shares = (array - least) / ((largest - least) or 1.0)
        head, packed = HEAD.pack(16, least, largest), np.round(shares * STEPS).astype("<u2")
    return base64.b64encode(zlib.compress(head + packed.tobytes(), 9)).decode()


def decode_scores(text: object, total: int) -> Tensor:
    """Return the values, float64, that encode_scores wrote; ValueError where the text is damaged."""
    if not isinstance(text, str):
        raise ValueError(f"damaged record of the scores (a {type(text).__name__})")
    inflate, most = zlib.decompressobj(), HEAD.size + 2 * total
    try:
        # One byte more than expected shows that there are more, however many a few kilobytes claim.
        data = inflate.decompress(base64.b64decode(text, validate=True), most + 1)
        bits, least, largest = HEAD.unpack(data[: HEAD.size])
    except (zlib.error, ValueError, struct.error) as error:  # ValueError: no base64
        raise ValueError(f"damaged record of the scores ({error})") from error
    rest = data[HEAD.size :]
    if bits not in (1, 16) or len(rest) != -(-total * bits // 8) or not inflate.eof:
        raise ValueError(f"expected a record of {total} scores, found {len(rest)} bytes or more")
    if not np.isfinite([least, largest]).all() or least > largest:
        raise ValueError(f"expected scores from a least to a largest, found {least} to {largest}")
    if bits == 1:
        codes = np.unpackbits(np.frombuffer(rest, np.uint8), count=total, bitorder="little")
        return torch.from_numpy(codes.astype(np.float64))
    shares = np.frombuffer(rest, "<u2").astype(np.float64) / STEPS
    return torch.from_numpy(least + shares * (largest - least))
