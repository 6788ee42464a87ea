"""What a card reaches at most, measured: bytes moved, and products of int8 and of float16."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from benchmarks.timing.clock import cuda_event_timer

COPIED_BYTES = 2**31
SIDE = 8192
"""Of a square matrix: large enough to fill the card."""
ROUNDS = 10


@dataclass(frozen=True, slots=True)
class Ceilings:
    """Bytes per second, read and written, and operations per second; a MAC is two."""

    bytes_per_s: float
    int8_ops_per_s: float
    float16_ops_per_s: float

    def floor_ms(self, macs: int, moved_bytes: int) -> dict[str, float]:
        """Return the least time of int8 work, by its bytes and by its operations."""
        return {
            "bytes_ms": moved_bytes / self.bytes_per_s * 1e3,
            "operations_ms": 2 * macs / self.int8_ops_per_s * 1e3,
        }


@cache
def ceilings(device: torch.device) -> Ceilings:
    """Measure the card: a large copy on the device, and large products of random numbers."""
    return Ceilings(
        2 * COPIED_BYTES / _copy_s(device),
        2 * SIDE**3 / _product_s(device, torch.int8, torch._int_mm),
        2 * SIDE**3 / _product_s(device, torch.float16, torch.mm),
    )


def _copy_s(device: torch.device) -> float:
    source = torch.randint(256, (COPIED_BYTES,), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return _fastest_s(lambda: target.copy_(source))


def _product_s(
    device: torch.device, dtype: torch.dtype, product: Callable[[Tensor, Tensor], Tensor]
) -> float:
    codes = torch.randint(-128, 128, (2, SIDE, SIDE), device=device).to(dtype)
    return _fastest_s(lambda: product(codes[0], codes[1].t()))


def _fastest_s(work: Callable[[], object]) -> float:
    timer = cuda_event_timer(work)
    timer()
    return min(timer() for _ in range(ROUNDS))
