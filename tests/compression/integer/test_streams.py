"""Residual streams on every executor: sums, what their rounding leaves, and the norms of both."""

from functools import partial

import pytest
import torch
from hypothesis import given, settings
from torch import Tensor, nn

from compression.integer import (
    code_differences,
    deploy,
    lacking,
    lower_native,
    lower_triton,
)
from compression.quantization import quantize_static
from tests.support.integer_nets import numbers
from tests.support.interpreter import lacking_interpreter
from tests.support.strategies import examples
from tests.support.streams import FIRST, stream, streams
from tests.support.transformer_nets import Made
from tests.support.tricky_nets import Net

TIES = {
    "onednn": (0.05, "a tie rounds to either side"),
    "onnxruntime": (0.05, "a tie rounds to either side"),
    "openvino": (0.05, "it multiplies by a reciprocal scale"),
}
"""The error of the outputs, at most."""
BEYOND = 20
"""Times as large as in calibration: sums are clamped, and their rests as well."""
needs_native = pytest.mark.skipif(lacking("native") is not None, reason=str(lacking("native")))
needs_interpreter = pytest.mark.skipif(
    bool(lacking_interpreter()), reason=str(lacking_interpreter())
)


def grid() -> Made:
    """Rows and columns of tokens, more than 64 channels."""
    net, _ = stream(70, 2, first="sum")
    conv = nn.Conv2d(3, 3, 1)
    seen = Net(lambda s, x: s.net(s.conv(x).permute(0, 2, 3, 1)), net=net, conv=conv)
    return seen.eval(), numbers(2, 3, 5, 4)


NAMED = {
    **{first: partial(stream, first=first) for first in FIRST},
    "sum last": lambda: stream(swapped=True),
    "moved": lambda: stream(moved=True),
    "no norm last": lambda: stream(ended=False),
    "wide": lambda: stream(130, 2, tokens=9),
    "rows of one": lambda: stream(1, 2, first="position"),
    "grid": grid,
}


@torch.inference_mode()
def assert_same_bits(executor: str, model: nn.Module, x: Tensor) -> None:
    """All images, one, and images that leave the ranges of calibration."""
    reference = quantize_static(model, x)
    lower = {"native": lower_native, "triton": lower_triton}[executor]
    integer = lower(reference, x)
    for images in (x, x[-1:], BEYOND * x, x):
        assert torch.equal(integer(images), reference(images))


@needs_native
@pytest.mark.parametrize("name", NAMED)
def test_native_is_the_reference_bit_for_bit(name: str) -> None:
    assert_same_bits("native", *NAMED[name]())


@needs_native
@settings(max_examples=examples(0.3))
@given(streams())
def test_native_is_the_reference_on_any_stream(made: Made) -> None:
    assert_same_bits("native", *made)


@needs_interpreter
@pytest.mark.parametrize("name", NAMED)
def test_triton_is_the_reference_bit_for_bit(name: str) -> None:
    assert_same_bits("triton", *NAMED[name]())


@needs_interpreter
@settings(max_examples=examples(0.1))
@given(streams())
def test_triton_is_the_reference_on_any_stream(made: Made) -> None:
    assert_same_bits("triton", *made)


@needs_native
def test_every_sum_has_the_codes_of_the_reference() -> None:
    model, x = stream()
    reference = quantize_static(model, x)
    found = code_differences(reference, lower_native(reference, x, keep=True), x)
    assert {"add_rest", "cat_rest", "add_1_rest"} <= set(found)
    assert set(found.values()) == {(0, 0.0)}


@pytest.mark.parametrize("executor", TIES)
@pytest.mark.parametrize("name", NAMED)
@torch.inference_mode()
def test_other_executors_give_the_reference_within_ties(name: str, executor: str) -> None:
    reason = lacking(executor)
    if reason:
        pytest.skip(reason)
    model, x = NAMED[name]()
    reference = quantize_static(model, x)
    deployed = deploy(reference, x, executor=executor)
    bound, _ = TIES[executor]
    for images in (x, x[:1], BEYOND * x):
        wanted = reference(images)
        assert (deployed(images) - wanted).norm() <= bound * wanted.norm()
