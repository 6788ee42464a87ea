"""Networks on the native executor in memory without slack: what test_sanitized.py runs.

`python -m tests.support.sanitized NETWORKS SLACK`, under the sanitizers' runtime: predictions of named
and of drawn networks are compared with the reference executor's, in memory that was scribbled on. A
process of its own runs the named ones with a byte less of slack first, and ends at a report.
"""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn

from compression.errors import CompressionError
from compression.integer import lower_native
from compression.integer.native import (
    library,
    model,
    native_embedding,
    native_linear,
    native_recurrent,
    packing,
    step,
    team,
)
from compression.integer.steps import geometry
from compression.quantization import quantize_dynamic, quantize_static, quantize_weights
from tests.support import transformer_nets
from tests.support.compared import assert_equal, poisoned_memory, run
from tests.support.drawing import program_of_seed
from tests.support.integer_nets import NETS, numbers
from tests.support.recurrent_cases import NAMED, assert_same

_take = geometry.Buffers.take
Case = tuple[nn.Module, Tensor]


def exact(numel: int, dtype: torch.dtype = torch.uint8, device: Any = None) -> Tensor:
    """Return zeros that fill an allocation of their own: what lies behind them is poisoned."""
    memory = torch.zeros(numel, dtype=dtype, device=device)
    assert memory.data_ptr() % geometry.ALIGNMENT == 0
    return memory


def scribbled(buffers: geometry.Buffers, shape: geometry.Geometry) -> Tensor:
    """Return memory whose border is filled, and whose image no step has written yet."""
    memory = _take(buffers, shape)
    images = torch.arange(buffers.images) * shape.stride
    pixels = (images[:, None] + shape.all_offsets())[..., None] + torch.arange(shape.pixel)
    memory[pixels] = 0xAA
    return memory


def tighten(slack: int) -> None:
    """Give every operand as many bytes as its step may read and write, and scribble on them.

    The bounds are not checked beforehand, so that the sanitizers are asked alone.
    """
    replaced: list[tuple[Any, str, Any]] = [
        (geometry, "aligned", exact),
        (packing, "aligned", exact),
        (team, "aligned", exact),
        (geometry, "SLACK", slack),
        (step, "BLOCK", packing.LANES - 1),
        (geometry.Buffers, "take", scribbled),
        (model, "check_bounds", lambda *_: None),
    ]
    for room, name, new in replaced:
        assert hasattr(room, name), f"{room} has no {name}: say here what has its place now"
        setattr(room, name, new)


def check(network: nn.Module, x: Tensor, threads: int) -> None:
    """Compare whole batches, an odd rest and one image with the reference executor, bit for bit.

    CompressionError where the network has no kernels.
    """
    reference = quantize_static(network, x)
    torch.set_num_threads(threads)
    integer = lower_native(reference, x[:2])
    for images in (len(x), 1):
        wanted = run(reference, (x[:images],))
        with poisoned_memory():
            assert_equal(run(integer, (x[:images],)), wanted, f"{network}, {threads} threads")


class Wide(nn.Module):
    """Several whole blocks of channels, and what is left of one."""

    def __init__(self) -> None:
        """Draw the weights."""
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 200, 1), nn.Conv2d(200, 200, 3, padding=1)
        self.c, self.head = nn.Conv2d(200, 200, 3, groups=200), nn.Linear(200, 130)

    def forward(self, x: Tensor) -> Tensor:
        """Return 130 numbers per image."""
        x = torch.relu(self.a(x))
        x = torch.relu(self.c(torch.relu(self.b(x) + x)))
        x = nn.functional.adaptive_avg_pool2d(nn.functional.max_pool2d(x, 3, 1, 1), 1)
        return self.head(torch.flatten(x, 1))  # type: ignore[no-any-return]


def drawn_cases() -> Iterator[Case]:
    """Yield the networks of one input that seeds stand for."""
    seed = 0
    while True:
        program = program_of_seed(seed)
        seed += 1
        if len(program.shapes) == 1:
            yield program.build(), program.inputs()[0]


def check_named(threads: int) -> None:
    """Check the networks that have names."""
    wide = Wide().eval(), numbers(3, 3, 7, 5)
    rows = [transformer_nets.NETS[name] for name in ("vit", "encoder, norms first", "by hand")]
    filters = nn.Conv2d(3, 64, 1), nn.ReLU(), nn.Conv2d(64, 20, 3, 2, 1)
    in_planes = nn.Sequential(*filters, nn.Flatten()).eval(), numbers(3, 3, 7, 10)
    for make in (*NETS.values(), *rows, lambda: wide, lambda: in_planes):
        torch.manual_seed(0)
        check(*make(), threads)


def check_linear() -> None:
    """Check linear layers of odd shapes in compiled code, whose packed weights have no slack."""
    for inputs, outputs in ((1, 1), (5, 17), (33, 40), (64, 64), (70, 130)):
        layer, x = nn.Linear(inputs, outputs), torch.randn(7, inputs)
        coded = [quantize_dynamic(layer)]
        coded += [
            quantize_weights(layer, num_bits=b, group_size=g) for b in (4, 8) for g in (None, 6)
        ]
        for network in coded:
            kernel = native_linear(network)
            assert kernel is not None
            for rows in (0, 1, 6, 7):
                torch.testing.assert_close(kernel(x[:rows]), network(x[:rows]))


def check_embedding() -> None:
    """Check embeddings of odd shapes in compiled code, whose tables have no slack."""
    for rows, columns in ((1, 1), (3, 17), (5, 40), (9, 64), (300, 300)):
        layer, indices = nn.Embedding(rows, columns), torch.arange(rows).flip(0)
        for bits in (4, 8):
            for group in (None, 1, 6, 16):
                coded = quantize_weights(layer, num_bits=bits, group_size=group)
                kernel = native_embedding(coded)
                assert kernel is not None
                assert torch.equal(kernel(indices), coded(indices))
                for beyond in (-1, rows):
                    with suppress(IndexError):
                        kernel(torch.tensor([0, beyond]))
                        raise AssertionError(f"row {beyond} of {rows} was read")


def check_recurrent() -> None:
    """Check recurrent layers of every kind in compiled code, with batches that shrink."""
    for case in NAMED.values():
        layer = quantize_dynamic(case.layer())
        kernel = native_recurrent(layer)
        assert kernel is not None
        assert_same(kernel(*case.call()), layer(*case.call()))
        for bits, group in ((8, None), (4, 6)):
            coded = quantize_weights(case.layer(), num_bits=bits, group_size=group)
            kernel = native_recurrent(coded)
            assert kernel is not None
            torch.testing.assert_close(kernel(*case.call()), coded(*case.call()))


def check_with(slack: int) -> None:
    """Check them with so many bytes after each operand."""
    tighten(slack)
    check_named(threads=1)


def alone(work: Callable[[], object]) -> int:
    """Do work in a fork, which must come before there are threads, and return how it ended."""
    if os.fork() == 0:
        work()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.wait()[1])


def main(networks: int, slack: int) -> None:
    """Check the named networks and so many drawn ones."""
    os.environ.pop("LD_PRELOAD")  # the compiler would run under it, too
    alone(library)  # what is loaded from the cache has the names of its sources in a report
    print("with a byte less:", alone(lambda: check_with(slack - 1)), flush=True)
    tighten(slack)
    for threads in (1, 2):
        check_named(threads)
        check_linear()
        check_embedding()
        check_recurrent()
    ran, tried = 0, 0
    for case in drawn_cases():
        if ran == networks:
            break
        tried += 1
        with suppress(CompressionError):  # no kernel
            check(*case, threads=1 + ran % 2)
            ran += 1
    print(f"{ran} networks ran of {tried}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
