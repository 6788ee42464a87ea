"""`struct step` of step.h as Python sees it, and the buffers that steps read and write."""

import ctypes
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import torch
from torch import Tensor

ALIGNMENT = 64
SLACK = 64
"""Bytes behind a buffer's last code that a step may read, and never uses."""


class Kind(IntEnum):
    """What a step does, as `enum kind`."""

    QUANTIZE = 0
    CONVOLUTION = 1
    DEPTHWISE = 2
    MAXIMUM = 3
    MEAN = 4
    MAP = 5


class Step(ctypes.Structure):
    """`struct step`."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in (
            "input", "output", "residual", "weights", "bias", "multiplier",
            "input_offsets", "output_offsets", "residual_offsets", "run_offsets", "bands",
        )),
        *((name, ctypes.c_int64) for name in (
            "input_stride", "output_stride", "residual_stride", "width", "plane",
        )),
        *((name, ctypes.c_int32) for name in (
            "kind", "pixels", "channels", "runs", "groups", "band_count",
            "input_zero", "residual_zero", "output_zero", "low", "high", "real",
        )),
        ("input_scale", ctypes.c_float),
        ("residual_ratio", ctypes.c_float),
    )  # fmt: skip


def step(kind: Kind, **fields: Any) -> tuple[Step, list[Tensor]]:
    """Return a step, and the tensors that its pointers point into: keep them as long as it."""
    tensors = {name: value for name, value in fields.items() if isinstance(value, Tensor)}
    values = {name: value for name, value in fields.items() if name not in tensors}
    pointers = {name: tensor.data_ptr() for name, tensor in tensors.items()}
    return Step(**{"kind": kind, "high": 255, **values, **pointers}), list(tensors.values())  # type: ignore[misc]


def aligned(numel: int, dtype: torch.dtype = torch.uint8) -> Tensor:
    """Return zeros whose first byte lies on a cache line."""
    room = torch.zeros(numel + ALIGNMENT, dtype=dtype)
    start = -room.data_ptr() % ALIGNMENT // room.itemsize
    return room[start : start + numel]


@dataclass(frozen=True, slots=True)
class Geometry:
    """How an activation lies in memory: NHWC with a border all around that holds `zero`."""

    channels: int
    height: int
    width: int
    border: int
    zero: int

    @property
    def sides(self) -> list[int]:
        """Return the channels, rows and columns."""
        return [self.channels, self.height, self.width]

    @property
    def row(self) -> int:
        """Return the bytes from row to row."""
        return (self.width + 2 * self.border) * self.channels

    @property
    def stride(self) -> int:
        """Return the bytes from image to image."""
        return (self.height + 2 * self.border) * self.row

    def offsets(self, rows: Tensor, columns: Tensor) -> Tensor:
        """Return the byte offset of each pixel (row, column), row by row (int32)."""
        places = (rows + self.border)[:, None] * self.row
        return (places + (columns + self.border) * self.channels).flatten().int()

    def all_offsets(self) -> Tensor:
        """Return the byte offset of every pixel."""
        return self.offsets(torch.arange(self.height), torch.arange(self.width))


class Buffers:
    """Memory of activations for `images` images, used again once its last reader has run."""

    def __init__(self, images: int) -> None:
        """Hold nothing yet."""
        self.images = images
        self._free: dict[Geometry, list[Tensor]] = {}

    def take(self, geometry: Geometry) -> Tensor:
        """Return memory whose border is filled."""
        free = self._free.setdefault(geometry, [])
        if free:
            return free.pop()
        memory = aligned(self.images * geometry.stride + SLACK)
        return memory.fill_(geometry.zero)

    def give_back(self, geometry: Geometry, memory: Tensor) -> None:
        """Let a later step of the same geometry write it."""
        self._free[geometry].append(memory)
