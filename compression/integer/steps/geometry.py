"""How activations lie in memory, and the buffers that hold them."""

from dataclasses import dataclass

import torch
from torch import Tensor

from compression.errors import UnsupportedTypeError

ALIGNMENT = 64
PLANES = 2, 2
"""The planes of an activation that lies in some: of even and odd rows, and columns."""
SLACK = 256
"""Bytes after a buffer's last code that a step may read, and never uses."""


def aligned(
    numel: int, dtype: torch.dtype = torch.uint8, device: torch.device | None = None
) -> Tensor:
    """Return zeros whose first byte lies on a cache line."""
    room = torch.zeros(numel + ALIGNMENT, dtype=dtype, device=device or torch.device("cpu"))
    start = -room.data_ptr() % ALIGNMENT // room.itemsize
    return room[start : start + numel]


@dataclass(frozen=True, slots=True)
class Geometry:
    """How an activation lies in memory: NDHWC, within a border that holds `zero`.

    The border is so many frames before and after, rows above and below, and columns left and right. A
    pixel takes `pixel` bytes, of which the first are its channels. Of `planes` (rows, columns) other
    than one, each holds what of a frame lies so many rows and columns apart, as one of its own.
    """

    channels: int
    frames: int
    height: int
    width: int
    border: tuple[int, int, int]
    zero: int
    pixel: int
    planes: tuple[int, int] = (1, 1)

    def __post_init__(self) -> None:
        """Refuse what 32-bit offsets cannot address."""
        if self.stride >= 2**31:
            raise UnsupportedTypeError(
                f"an image's activation of {self.sides} takes {self.stride} bytes, beyond the 2 GiB "
                "that integer steps address"
            )

    @property
    def sides(self) -> list[int]:
        """Return the channels, frames, rows and columns."""
        return [self.channels, self.frames, self.height, self.width]

    @property
    def row(self) -> int:
        """Return the bytes from row to row of a plane."""
        return -(-(self.width + 2 * self.border[2]) // self.planes[1]) * self.pixel

    @property
    def plane(self) -> int:
        """Return the bytes of a plane."""
        return -(-(self.height + 2 * self.border[1]) // self.planes[0]) * self.row

    @property
    def frame(self) -> int:
        """Return the bytes from frame to frame."""
        return self.planes[0] * self.planes[1] * self.plane

    @property
    def stride(self) -> int:
        """Return the bytes from image to image."""
        return (self.frames + 2 * self.border[0]) * self.frame

    def offsets(self, frames: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        """Return the byte offset of each pixel (frame, row, column), row by row (int32)."""
        sides = zip((frames, rows, columns), self.border, strict=True)
        frame, row, column = (places + before for places, before in sides)
        down, right = self.planes
        places = row % down * right * self.plane + row // down * self.row
        within = column % right * self.plane + column // right * self.pixel
        return (frame[:, None, None] * self.frame + places[:, None] + within).flatten().int()

    def all_offsets(self) -> Tensor:
        """Return the byte offset of every pixel."""
        return self.offsets(*(torch.arange(side) for side in self.sides[1:]))


class Buffers:
    """Memory of activations for `images` images, used again once its last reader has run."""

    def __init__(self, images: int, dtype: torch.dtype, device: torch.device) -> None:
        """Hold nothing yet."""
        self.images, self.dtype, self.device = images, dtype, device
        self._free: dict[Geometry, list[Tensor]] = {}

    def take(self, geometry: Geometry) -> Tensor:
        """Return memory whose border is filled."""
        free = self._free.setdefault(geometry, [])
        if free:
            return free.pop()
        memory = aligned(self.images * geometry.stride + SLACK, self.dtype, self.device)
        return memory.fill_(geometry.zero)

    def alone(self, geometry: Geometry) -> Tensor:
        """Return memory of one image, which no other value gets."""
        return aligned(geometry.stride + SLACK, self.dtype, self.device)

    def give_back(self, geometry: Geometry, memory: Tensor) -> None:
        """Let a later step of the same geometry write it."""
        self._free[geometry].append(memory)
