"""Threads that divide a prediction: by their speed, and whatever they take gives the same bits."""

import os
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torchvision.models import resnet18

from compression.integer import lacking, lower_native
from compression.integer.native import chunks
from compression.integer.native.library import library
from compression.integer.native.team import Team
from compression.quantization import quantize_static
from tests.support.integer_nets import NETS

pytestmark = pytest.mark.skipif(lacking("native") is not None, reason=str(lacking("native")))
WHOLE = 2**20
SLACK = 1.15
"""Of the mean, what the last thread may take once the edges stand still: they are rounded to units."""
STEPS = 3


def edges_of(threads: int) -> Tensor:
    return Team(library(), STEPS, threads, 64).edges[1]


def before(units: int, edges: Tensor) -> Tensor:
    """Return how many units lie before each edge, as step.h rounds."""
    return (units * edges + WHOLE // 2) // WHOLE


def move(edges: Tensor, busy: list[int], units: int) -> None:
    times = torch.tensor(busy)
    library().move_edges(edges.data_ptr(), times.data_ptr(), 1, len(busy), units)


def worked(edges: Tensor, speeds: list[int], units: int) -> list[int]:
    """Return what threads of these speeds take for their units."""
    return [
        int(taken) * 10**6 // speed
        for taken, speed in zip(before(units, edges).diff(), speeds, strict=True)
    ]


@given(st.lists(st.integers(1, 10**9), min_size=1, max_size=9), st.integers(0, 3000))
def test_edges_stay_in_order_and_each_thread_keeps_a_unit(busy: list[int], units: int) -> None:
    edges = edges_of(len(busy))
    for _ in range(3):
        move(edges, busy, units)
        move(edges, busy[::-1], units)
        assert edges[0] == 0
        assert edges[-1] == WHOLE
        assert edges.diff().min() >= 0
        assert units < len(busy) or before(units, edges).diff().min() >= 1


@pytest.mark.parametrize("units", [16, 49, 1000])
@pytest.mark.parametrize("speeds", [[10, 24], [24, 10], [10, 10, 20, 20], [1, 1, 1, 5]], ids=str)
def test_no_thread_waits_long_for_slower_ones(speeds: list[int], units: int) -> None:
    edges = edges_of(len(speeds))
    for _ in range(20):
        move(edges, worked(edges, speeds, units), units)
    times = worked(edges, speeds, units)
    a_unit = 10**6 / min(speeds)
    assert max(times) <= SLACK * sum(times) / len(times) + a_unit
    move(edges, worked(edges, [10] * len(speeds), units), units)
    assert torch.equal(edges, edges_of(len(speeds))), "as soon as they are alike"


def test_threads_that_are_nearly_alike_take_as_much() -> None:
    """Times scatter: what follows every one of them is never where it should be."""
    edges = edges_of(2)
    move(edges, [100, 130], 1000)
    assert torch.equal(edges, edges_of(2))
    move(edges, [100, 0], 1000)
    assert torch.equal(edges, edges_of(2)), "a thread that was not timed moves nothing"


@pytest.fixture
def threads() -> Iterator[None]:
    """Restore the number of threads, and the cores that they run on."""
    before = torch.get_num_threads()
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    yield
    torch.set_num_threads(before)
    if cores:
        os.sched_setaffinity(0, cores)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("net", [*NETS, "resnet18"])
def test_any_edges_give_the_same_bits(net: str) -> None:
    torch.manual_seed(0)
    network, x = (
        NETS[net]() if net in NETS else (resnet18(num_classes=5), torch.randn(3, 3, 72, 72))
    )
    reference = quantize_static(network.eval(), x)
    images = x.repeat(2, *[1] * (x.ndim - 1))
    with torch.inference_mode():
        integer = lower_native(reference, images)
        for count, threads in ((1, 2), (3, 2), (1, 3)):
            torch.set_num_threads(threads)
            integer(images[:count])
            for _ in range(2):
                edges = integer._team.edges
                edges[:, 1:-1] = torch.randint(WHOLE + 1, edges[:, 1:-1].shape).sort(-1).values
                assert torch.equal(integer(images[:count]), reference(images[:count]))


@pytest.mark.usefixtures("threads")
@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no threads are bound here")
@pytest.mark.parametrize("step_bytes", [1, 2**11, 2**13, chunks.STEP_BYTES])
@pytest.mark.parametrize("net", NETS)
def test_images_that_other_threads_take_give_the_same_bits(
    net: str, step_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four threads on one core: whichever runs takes what is left of the others', at any pace."""
    torch.manual_seed(0)
    monkeypatch.setattr(chunks, "STEP_BYTES", step_bytes)
    network, x = NETS[net]()
    reference = quantize_static(network, x)
    many = x.repeat(8, *[1] * (x.ndim - 1))[:19]
    torch.set_num_threads(4)
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    with torch.inference_mode():
        integer = lower_native(reference, many)
        for _ in range(3):
            assert torch.equal(integer(many), reference(many))
