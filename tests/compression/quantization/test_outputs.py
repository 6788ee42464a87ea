"""Networks of several outputs: each has a scale of its own, and its place in a structure."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compression.distillation import MeanSquared
from compression.errors import UnsupportedTypeError
from compression.nested import structure_of, tensors_in
from compression.quantization import modules as q
from compression.quantization import quantize_aware, quantize_static
from compression.storage import load, save
from compression.training import Recipe, Split
from tests.support.bounds import STATIC
from tests.support.compared import assert_within, bounds
from tests.support.functional import Net
from tests.support.integer_nets import numbers
from tests.support.structured_nets import STRUCTURES, made

# what: (bound, reason)
TOLERANCES = {"outputs": (0.03, "8 bits on a few layers of random weights err by 1 to 2%")}


@pytest.mark.parametrize("name", STRUCTURES)
@torch.no_grad()
def test_the_structure_comes_back_and_each_output_is_right(name: str, tmp_path: Path) -> None:
    net, x = made(name)
    small = quantize_static(net, x)
    found, right = small(x), net(x)
    assert structure_of(found) == structure_of(right)
    assert_within(list(tensors_in(found)), bounds(net, (x,), STATIC), name)
    for one, other in zip(tensors_in(found), tensors_in(right), strict=True):
        assert (one - other).norm() <= TOLERANCES["outputs"][0] * other.norm()
    for entropy_coded in (False, True):
        save(small, tmp_path / "small", entropy_coded=entropy_coded)
        again = load(tmp_path / "small", lambda: made(name)[0])(x)
        assert structure_of(again) == structure_of(found)
        assert all(map(torch.equal, tensors_in(again), tensors_in(found)))


@pytest.mark.parametrize("name", STRUCTURES)
@torch.no_grad()
def test_equalized_and_corrected_outputs_are_right(name: str) -> None:
    net, x = made(name)
    small = quantize_static(net, x, method="mse", equalization=True, bias_correction=True)
    for one, other in zip(tensors_in(small(x)), tensors_in(net(x)), strict=True):
        assert (one - other).norm() <= TOLERANCES["outputs"][0] * other.norm()


def test_one_value_stays_one() -> None:
    net, x = made("one value in two places")
    small = quantize_static(net, x)
    first, second, third = small(x)
    assert first is second is third["again"]
    assert not any(isinstance(m, q.Dequantize) for m in small.modules())


ENDS: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "a dropped layer": lambda s, x: s.drop(s.a(x)),
    "dropped twice": lambda s, x: s.drop(s.drop(s.a(x))),
    "a sum with a dropped layer": lambda s, x: x + s.drop(s.drop(s.a(x))),
    "and what was rounded": lambda s, x: F.relu(s.a(x)) + s.drop(s.a(x)),
}


@pytest.mark.parametrize("name", ENDS)
def test_a_dropout_before_the_output_changes_nothing(name: str) -> None:
    net = Net(ENDS[name], a=nn.Linear(4, 4), drop=nn.Dropout()).eval()
    plain = Net(ENDS[name], a=net.a, drop=nn.Identity())
    x = numbers(5, 4)
    assert torch.equal(quantize_static(net, x)(x), quantize_static(plain, x)(x))


def test_codes_are_dequantized_once() -> None:
    net = Net(lambda s, x: (y := F.relu(s.a(x)), s.drop(y)), a=nn.Linear(4, 3), drop=nn.Dropout())
    small = quantize_static(net.eval(), x := numbers(5, 4))
    first, second = small(x)
    assert first is second
    assert sum(isinstance(m, q.Dequantize) for m in small.modules()) == 1


def test_outputs_that_no_layer_reads_are_not_rounded() -> None:
    small = quantize_static(*made("tuple"))
    assert not any(isinstance(m, q.Dequantize) for m in small.modules())


@torch.no_grad()
def test_a_layer_by_the_name_of_the_graphs_end_is_not_equalized_with_itself() -> None:
    torch.manual_seed(0)
    net = Net(lambda s, x: s.output(x), output=nn.Conv2d(4, 4, 1)).eval()
    net.output.weight *= torch.logspace(-1, 1, 4)[:, None, None, None]  # type: ignore[union-attr,operator]
    x = numbers(8, 4, 5, 5)
    found, right = quantize_static(net, x, equalization=True)(x), net(x)
    assert (found - right).norm() <= TOLERANCES["outputs"][0] * right.norm()


def heads(outputs: Any, labels: Tensor, _: Tensor) -> Tensor:
    return F.cross_entropy(outputs["out"], labels) + F.cross_entropy(outputs["aux"][0], labels)


def two_heads() -> nn.Module:
    torch.manual_seed(0)
    return Net(
        lambda s, x: {"out": s.b(y := F.relu(s.a(x))), "aux": [s.c(y), y]}, a=nn.Linear(6, 16),
        b=nn.Linear(16, 2), c=nn.Linear(16, 2),
    )  # fmt: skip


def test_training_with_rounding_takes_a_loss_of_all_outputs() -> None:
    x = numbers(128, 6)
    train = Split(x, (x[:, 0] > 0).long(), prepare=lambda x: x)
    recipe = Recipe(epochs=8, batch_size=32, learning_rate=0.3)
    small = quantize_aware(two_heads(), train, recipe, x, loss=heads)
    assert type(small(x)) is dict
    for logits in (small(x)["out"], small(x)["aux"][0]):
        assert (logits.argmax(1) == train.labels).float().mean() > 0.9
    with pytest.raises(
        UnsupportedTypeError, match="one tensor of floating-point logits, found a d"
    ):
        quantize_aware(two_heads(), train, recipe, x)
    with pytest.raises(
        UnsupportedTypeError, match="one tensor of floating-point logits, found a d"
    ):
        quantize_aware(two_heads(), train, recipe, x, teacher=nn.Linear(6, 2))
    with pytest.raises(UnsupportedTypeError, match="floating-point logits, found a dict"):
        quantize_aware(two_heads(), train, recipe, x, loss=heads, teacher=two_heads())
    taught = quantize_aware(
        two_heads(), train, recipe, x, loss=heads, teacher=two_heads(),
        distillation=MeanSquared(alpha=0.1),
    )  # fmt: skip
    assert (taught(x)["out"].argmax(1) == train.labels).float().mean() > 0.9


REFUSED = {
    "a size": (lambda s, x: {"out": s.a(x), "n": x.shape[0]}, "found a size at 'n'"),
    "a parameter": (lambda s, x: (s.a(x), s.a.bias), "parameters or constants|constant at '1'"),
    "the parts of a split": (lambda s, x: s.a(x).chunk(2, 1), "found parts; wrap"),
    "nothing": (lambda *_: {}, "found immutable_dict|found dict"),
    "another dictionary": (
        lambda s, x: type("Own", (dict,), {})(out=s.a(x)),
        "another structure than its forward, dict of out for Own of out",
    ),
}


@pytest.mark.parametrize("fallback", [False, True])
@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_structure_of_tensors_is_refused(name: str, fallback: bool) -> None:
    how, said = REFUSED[name]
    with pytest.raises(UnsupportedTypeError, match=said):
        quantize_static(Net(how, a=nn.Conv2d(3, 4, 1)), numbers(2, 3, 4, 4), fallback=fallback)
