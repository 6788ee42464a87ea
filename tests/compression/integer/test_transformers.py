"""Transformers on every executor; triton's are in triton/test_rows.py."""

import pytest
import torch

from compression.integer import code_differences, deploy, lacking, lower_native
from compression.quantization import modules as q
from compression.quantization import quantize_static
from tests.support import mixed_nets
from tests.support.transformer_nets import NETS

EXECUTORS = {
    "onednn": (0.05, "a tie rounds to either side"),
    "onnxruntime": (0.1, "a tie rounds to either side; its softmax is in float32"),
    "openvino": (0.1, "it multiplies by a reciprocal scale; its softmax is in float32"),
}


@pytest.mark.skipif(lacking("native") is not None, reason=str(lacking("native")))
@pytest.mark.parametrize("name", NETS)
@torch.no_grad()
def test_native_is_the_reference_bit_for_bit(name: str) -> None:
    model, x = NETS[name]()
    reference = quantize_static(model, x)
    integer = lower_native(reference, x, keep=True)
    differences = code_differences(reference, integer, x)
    rows = (q.QuantizedLayerNorm, q.QuantizedAttention)
    modules = dict(reference.network.named_modules())
    for node in reference.network.graph.nodes:
        if isinstance(modules.get(str(node.target)), rows):
            assert node.name in differences
    assert set(differences.values()) == {(0, 0.0)}
    for threads in (1, 3):
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            found = lower_native(reference, x[:2])
            for images in (x, x[:1], x):
                assert torch.equal(found(images), reference(images))
        finally:
            torch.set_num_threads(before)


@pytest.mark.skipif(lacking("native") is not None, reason=str(lacking("native")))
@pytest.mark.parametrize("name", mixed_nets.NETS)
@torch.no_grad()
def test_native_takes_values_as_tokens_and_as_signals_bit_for_bit(name: str) -> None:
    model, x = mixed_nets.NETS[name]()
    reference = quantize_static(model, x)
    integer = lower_native(reference, x)
    for images in (x, x[:1]):
        pairs = list(zip(integer(images), reference(images), model(images), strict=True))
        assert len(pairs) > 1
        for found, wanted, real in pairs:
            assert torch.equal(found, wanted)
            assert (found - real).norm() <= 0.05 * real.norm(), "codes of 8 bits, a few layers deep"


@pytest.mark.parametrize("executor", EXECUTORS)
@pytest.mark.parametrize("name", ["vit", "convnext", "encoder, norms first", "by hand"])
@torch.no_grad()
def test_other_executors_give_the_reference_within_ties(name: str, executor: str) -> None:
    reason = lacking(executor)
    if reason:
        pytest.skip(reason)
    model, x = NETS[name]()
    reference = quantize_static(model, x)
    deployed, wanted = deploy(reference, x, executor=executor), reference(x)
    bound, _ = EXECUTORS[executor]
    assert type(deployed) is not type(reference)
    assert (deployed(x) - wanted).norm() <= bound * wanted.norm()
    assert deployed(x[:1]).shape == wanted[:1].shape
