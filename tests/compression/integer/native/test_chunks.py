"""A few images at a time through some steps of the native executor: bit for bit as all at once."""

import pytest
import torch
from torch import nn

from compression.integer import lacking, lower_native
from compression.integer.native import chunks
from compression.quantization import quantize_static
from tests.support.integer_nets import NETS, numbers

pytestmark = pytest.mark.skipif(lacking("native") is not None, reason=str(lacking("native")))


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("net", NETS)
def test_any_pace_gives_the_same_bits(
    net: str, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Images one by one through all steps; and few through the first, more through the last."""
    torch.manual_seed(0)
    model, x = NETS[net]()
    reference = quantize_static(model, x)
    many = x.repeat(4, *[1] * (x.ndim - 1))[:11]
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.inference_mode():
            wanted = reference(many)
            for step_bytes in (1, 2**11, 2**13):
                monkeypatch.setattr(chunks, "STEP_BYTES", step_bytes)
                assert torch.equal(lower_native(reference, many)(many), wanted)
    finally:
        torch.set_num_threads(before)


def test_steps_take_more_images_where_maps_are_small(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model, x = NETS["residual"]()
    integer = lower_native(quantize_static(model, x), x.repeat(8, 1, 1, 1))
    assert len({step.at_once for step in integer._steps}) == 1
    monkeypatch.setattr(chunks, "STEP_BYTES", 2**13)
    integer = lower_native(quantize_static(model, x), x.repeat(8, 1, 1, 1))
    at_once = [step.at_once for step in integer._steps]
    assert at_once == sorted(at_once)
    assert len(set(at_once)) > 1
    between = [step for step in integer._steps if step.passing]
    assert between, "what is read at the same pace only lies in the same memory for each few images"


def test_large_weights_are_fetched_for_more_images(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    filters = nn.Conv2d(3, 64, 3), nn.Conv2d(64, 512, 3)
    model, x = nn.Sequential(*filters, nn.AdaptiveAvgPool2d(1), nn.Flatten()), numbers(2, 3, 6, 6)
    reference, many = quantize_static(model.eval(), x), x.repeat(32, 1, 1, 1)
    monkeypatch.setattr(chunks, "STEP_BYTES", 2**15)
    integer = lower_native(reference, many)
    wide = next(step for step in integer._steps if step.channels == 512)
    moved = wide.input_stride + wide.output_stride
    assert wide.at_once * moved > 2**15, "the weights are more than the codes of so few images"
    assert wide.at_once * wide.input_stride < 2**16
    with torch.inference_mode():
        assert torch.equal(integer(many), reference(many))


def test_a_chunk_holds_images_of_each_thread() -> None:
    threads = torch.get_num_threads()
    assert chunks.images_of_chunk(10**6, chunks.CHUNK_BYTES) == chunks.IMAGES_EACH * threads
    assert chunks.images_of_chunk(10**6, chunks.MOST_BYTES) == 1
    assert chunks.images_of_chunk(3, 1) == 3
