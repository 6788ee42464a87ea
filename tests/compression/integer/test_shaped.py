"""Networks of other shapes than a classifier's: in integers throughout, and on every executor."""

import functools
import warnings

import pytest
import torch
from torch import Tensor, nn

from compression.integer import EXECUTORS, NativeModel, deploy, device_of, lacking, lower_triton
from compression.layers import left_out
from compression.nested import structure_of, tensors_in
from compression.quantization import StaticQuantizedModel, quantize_static
from tests.support.bounds import EXECUTORS as ROUNDING
from tests.support.compared import assert_equal, assert_within, bounds
from tests.support.interpreter import lacking_interpreter
from tests.support.shaped_nets import NETS, SEGMENTATION, made

# what: (bound, reason)
TOLERANCES = {
    "small": (0.02, "8 bits on up to ten layers of random weights err by 1%"),
    "segmentation": (0.05, "8 bits on fifty layers of random weights err by 3%"),
}
CPU = [name for name in EXECUTORS if device_of(name) == "cpu"]


@functools.cache
def small(name: str) -> tuple[nn.Module, StaticQuantizedModel, Tensor]:
    net, x = made(name)
    return net, quantize_static(net, x), x


@pytest.mark.parametrize("name", [*NETS, *SEGMENTATION])
@torch.no_grad()
def test_the_reference_is_right_and_nothing_stays_in_float(name: str) -> None:
    net, reference, x = small(name)
    bound, _ = TOLERANCES["small" if name in NETS else "segmentation"]
    assert not left_out(reference)
    found, right = reference(x), net(x)
    assert structure_of(found) == structure_of(right)
    for one, other in zip(tensors_in(found), tensors_in(right), strict=True):
        assert (one - other).norm() <= bound * other.norm()


@pytest.mark.skipif(bool(lacking("native")), reason=str(lacking("native")))
@pytest.mark.parametrize("name", [*NETS, *SEGMENTATION])
@torch.no_grad()
def test_deploy_takes_the_native_executor(name: str) -> None:
    _, reference, x = small(name)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # an executor that fails, where it should refuse
        deployed = deploy(reference, x[:1])
    assert isinstance(deployed, NativeModel)
    assert_equal([*tensors_in(deployed(x))], [*tensors_in(reference(x))], name)


@pytest.mark.parametrize("executor", [e for e in CPU if e != "native"])
@pytest.mark.parametrize("name", NETS)
@torch.no_grad()
def test_other_executors_give_its_outputs_but_for_ties(name: str, executor: str) -> None:
    if reason := lacking(executor):
        pytest.skip(reason)
    net, reference, x = small(name)
    found, wanted = deploy(reference, x, executor=executor)(x), reference(x)
    assert structure_of(found) == structure_of(wanted)
    spread = [bound for _, bound in bounds(net, (x,), ROUNDING)]
    right = list(zip((w.double() for w in tensors_in(wanted)), spread, strict=True))
    assert_within([*tensors_in(found)], right, f"{name}, {executor}")


@pytest.mark.skipif(bool(lacking_interpreter()), reason=lacking_interpreter())
@pytest.mark.parametrize("name", NETS)
@torch.no_grad()
def test_tritons_interpreter_gives_the_references_bits(name: str) -> None:
    _, reference, x = small(name)
    found = lower_triton(reference, x[:1])(x[:1])
    wanted = [tensor[:1] for tensor in tensors_in(reference(x))]
    assert_equal([*tensors_in(found)], wanted, name)
