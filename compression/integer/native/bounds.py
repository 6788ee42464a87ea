"""What a step may read and write: checked once, before compiled code trusts it."""

from typing import Any

import torch
from torch import Tensor

from compression.errors import CompressionError
from compression.integer.native.packing import GROUP, LANES
from compression.integer.steps import Kind, Step

DTYPES = {"bias": torch.int32, "multiplier": torch.float32, "weights": torch.int8}
"""Of the tensors of step.h; offsets and bands are int32, codes uint8."""


def check_bounds(step: Step, images: int) -> None:
    """Raise CompressionError unless `step`, for so many images, stays within its tensors."""
    fields = step.fields
    for name, value in fields.items():
        if isinstance(value, Tensor):
            expected = DTYPES.get(name, torch.uint8 if value.ndim == 1 else torch.int32)
            expected = torch.int32 if name.endswith("_offsets") or name == "bands" else expected
            _check(step, value.dtype == expected and value.is_contiguous(), f"{name}'s memory")
    channels = fields["channels"]
    if step.kind is not Kind.QUANTIZE:
        _check_place(step, "input", _reach(step), images)
    if not fields.get("real"):
        _check_place(step, "output", channels, images)
    if "residual" in fields:
        _check_place(step, "residual", channels, images)
    for name in {"bias", "multiplier"} & fields.keys():
        _check(step, fields[name].shape == (channels,), f"{name} per channel")
    if step.kind is Kind.CONVOLUTION:
        lanes = -(-channels // LANES) * LANES
        packed = lanes * fields["runs"] * fields["groups"] * GROUP
        _check(step, fields["weights"].numel() == packed, "packed weights")
        _check_bands(step)
    if step.kind is Kind.DEPTHWISE:
        _check(step, fields["weights"].shape == (fields["runs"], channels), "weights per tap")


def _reach(step: Step) -> int:
    """Return the bytes from a window's corner to the end of what is read."""
    f: dict[str, Any] = step.fields
    if step.kind is Kind.MAP:
        return int(f["channels"])
    last, first = int(f["run_offsets"].max()), int(f["run_offsets"].min())
    _check(step, first >= 0 and len(f["run_offsets"]) == f["runs"], "runs of a window")
    if step.kind is Kind.CONVOLUTION:
        return last + GROUP * int(f["groups"])
    across = (int(f["groups"]) - 1) * int(f["width"]) if step.kind is Kind.MEAN else 0
    return last + across + int(f["channels"])


def _check_place(step: Step, role: str, reach: int, images: int) -> None:
    f = step.fields
    offsets, memory = f[f"{role}_offsets"], f[role]
    _check(step, len(offsets) == f["pixels"], f"{role}_offsets per pixel")
    end = (images - 1) * f[f"{role}_stride"] + int(offsets.max()) + reach
    _check(step, int(offsets.min()) >= 0 and end <= memory.numel(), f"{role} within its memory")


def _check_bands(step: Step) -> None:
    f = step.fields
    first, pixels, run, runs, group, groups = f["bands"].t()
    inside = bool(((run >= 0) & (run + runs <= f["runs"])).all())
    inside = inside and bool(((group >= 0) & (group + groups <= f["groups"])).all())
    inside = inside and first.tolist() == [0, *pixels.cumsum(0)[:-1].tolist()]
    _check(step, inside and int(pixels.sum()) == f["pixels"], "bands of pixels")


def _check(step: Step, holds: bool, what: str) -> None:
    if not holds:
        raise CompressionError(
            f"{step.name}: the native executor would read or write beyond a tensor ({what}); use "
            "another executor, and report this network"
        )
