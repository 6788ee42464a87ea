"""Networks on the native executor in memory without slack: what test_native_sanitized.py runs.

`python -m tests.sanitized NETWORKS SLACK`, under the sanitizers' runtime: predictions of drawn networks
are compared with the reference executor's, in memory that was scribbled on.
"""

import os
import sys
from typing import Any

import torch
from hypothesis import HealthCheck, given, reject, settings
from torch import Tensor, nn

from compression.errors import CompressionError
from compression.integer import lower_native
from compression.integer.lowered import geometry
from compression.integer.native import packing, step
from compression.quantization import quantize_static
from tests.integer_nets import NETS, convolutions, numbers

READ_AHEAD = packing.GROUP - 1
"""Bytes behind an activation's last code that a step may read: codes are read four at a time."""
_empty, _take = torch.empty, geometry.Buffers.take


def exact(numel: int, dtype: torch.dtype = torch.uint8, device: Any = None) -> Tensor:
    """Return zeros that fill an allocation of their own: what lies behind them is poisoned."""
    memory = torch.zeros(numel, dtype=dtype, device=device)
    assert memory.data_ptr() % geometry.ALIGNMENT == 0
    return memory


def scribbled(buffers: geometry.Buffers, shape: geometry.Geometry) -> Tensor:
    """Return memory whose border is filled, and whose image no step has written yet."""
    memory = _take(buffers, shape)
    lines = memory[: buffers.images * shape.stride].view(
        buffers.images, shape.height + 2 * shape.border, -1, shape.pixel
    )
    b = shape.border
    lines[:, b : b + shape.height, b : b + shape.width] = 0xAA
    return memory


def unwritten(*size: Any, **options: Any) -> Tensor:
    """Return torch.empty's tensor, filled with what shows wherever it is taken for a result."""
    tensor = _empty(*size, **options)
    return tensor.fill_(torch.nan if tensor.is_floating_point() else 0x55)


def tighten(slack: int) -> None:
    """Give every operand as many bytes as its step may read and write, and scribble on them."""
    for room in (geometry, packing):
        assert callable(room.aligned)
        room.aligned = exact  # type: ignore[attr-defined]
    geometry.SLACK = slack
    step.BLOCK = packing.LANES - 1  # type: ignore[attr-defined]
    geometry.Buffers.take = scribbled  # type: ignore[method-assign]
    torch.empty = unwritten  # type: ignore[assignment]


def check(model: nn.Module, x: Tensor, threads: int) -> None:
    """Compare whole batches, an odd rest and one image with the reference executor, bit for bit."""
    reference = quantize_static(model, x)
    torch.set_num_threads(threads)
    integer = lower_native(reference, x[:2])
    with torch.inference_mode():
        wanted = reference(x)
        for images in (len(x), 1):
            assert torch.equal(integer(x[:images]), wanted[:images]), model


class Wide(nn.Module):
    """Several whole blocks of channels, and what is left of one."""

    def __init__(self) -> None:
        """Draw the weights."""
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 200, 1), nn.Conv2d(200, 200, 3, padding=1)
        self.c, self.head = nn.Conv2d(200, 200, 3, groups=200), nn.Linear(200, 130)

    def forward(self, x: Tensor) -> Tensor:
        """Return 130 numbers an image."""
        x = torch.relu(self.a(x))
        x = torch.relu(self.c(torch.relu(self.b(x) + x)))
        x = nn.functional.adaptive_avg_pool2d(nn.functional.max_pool2d(x, 3, 1, 1), 1)
        return self.head(torch.flatten(x, 1))  # type: ignore[no-any-return]


def main(networks: int, slack: int) -> None:
    """Check the named networks and so many drawn ones."""
    os.environ.pop("LD_PRELOAD")  # the compiler would run under it, too
    tighten(slack)
    for make in (*NETS.values(), lambda: (Wide().eval(), numbers(3, 3, 7, 5))):
        for threads in (1, 2):
            torch.manual_seed(0)
            check(*make(), threads)
    ran = 0

    @settings(
        max_examples=networks, derandomize=True, deadline=None, database=None,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(convolutions())
    def draw(case: tuple[nn.Module, Tensor]) -> None:
        nonlocal ran
        try:
            check(*case, threads=1 + ran % 2)
        except CompressionError:  # refused
            reject()
        ran += 1

    draw()
    print(f"{ran} networks ran")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
