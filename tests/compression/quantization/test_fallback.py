"""What has no integer arithmetic stays in float where it is asked to, and is named."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compression.errors import UnsupportedTypeError
from compression.integer import deploy, lacking, lower_onednn
from compression.layers import left_out
from compression.nested import tensors_in
from compression.quantization import quantize_aware, quantize_static
from compression.storage import load, save
from compression.training import Split
from tests.support.fallback_nets import PARTS, Mixed, parts
from tests.support.integer_nets import numbers
from tests.support.nets import RECIPE, images, split

# what: (bound of the largest output, reason)
TOLERANCES = {
    "rehearsal": (0.02, "the deployed bias is rounded, and a sum of floats moves ties"),
}
STAYS = {"atan2", "norm", "matmul", "maximum", "softmax", "matmul_1"}


@pytest.fixture(scope="module")
def small() -> nn.Module:
    return quantize_static(Mixed().eval(), numbers(8, 3, 4, 5), fallback=True)


def test_it_is_refused_by_name_unless_it_may_stay() -> None:
    with pytest.raises(
        UnsupportedTypeError, match=r"atan2 at \(fallback_nets.*fallback=True\) leaves"
    ):
        quantize_static(Mixed().eval(), numbers(8, 3, 4, 5))


@torch.no_grad()
def test_what_stays_is_named_and_right(small: nn.Module) -> None:
    assert set(left_out(small)) == STAYS
    x = numbers(8, 3, 4, 5)
    wanted = Mixed().eval()(x)
    assert (small(x) - wanted).norm() <= 0.05 * (wanted - wanted.mean(0)).norm()
    assert small(x[:0]).shape == (0, 6)


@pytest.mark.parametrize("entropy_coded", [False, True])
def test_files_hold_what_stays(small: nn.Module, tmp_path: Path, entropy_coded: bool) -> None:
    save(small, tmp_path / "mixed", entropy_coded=entropy_coded)
    x = numbers(3, 3, 4, 5, seed=1)
    other = Mixed()
    nn.init.normal_(other.scale)
    assert torch.equal(load(tmp_path / "mixed", lambda: other)(x), small(x))


@pytest.mark.skipif(bool(lacking("onednn")), reason=str(lacking("onednn")))
def test_deploy_runs_the_rest_on_kernels(small: nn.Module) -> None:
    x = numbers(5, 3, 4, 5, seed=1)
    found: Any = lower_onednn(small, x, fallback=True)  # type: ignore[arg-type]
    assert set(found.stayed) >= STAYS
    assert {"a", "qkv", "head"}.isdisjoint(found.stayed)
    assert torch.allclose(deploy(small, x)(x), small(x), atol=0.02)


@torch.no_grad()
def test_what_stays_is_rehearsed_as_it_is_deployed(monkeypatch: pytest.MonkeyPatch) -> None:
    rehearsals: list[nn.Module] = []

    def trained(network: nn.Module, *_: Any, **__: Any) -> None:
        for parameter in network.parameters():  # constants, layers on codes and in float
            parameter.mul_(1.25)
        rehearsals.append(network)

    monkeypatch.setattr("compression.quantization.qat.fit", trained)
    x = numbers(8, 3, 4, 5)
    data = Split(x, torch.zeros(8, dtype=torch.long), prepare=lambda x: x)
    deployed = quantize_aware(Mixed().eval(), data, RECIPE, x, fallback=True)
    assert set(left_out(deployed)) == STAYS
    wanted = rehearsals[0].eval()(x)
    assert (deployed(x) - wanted).abs().max() <= TOLERANCES["rehearsal"][0] * wanted.abs().max()


def test_statistics_of_what_stays_follow_the_training() -> None:
    torch.manual_seed(0)
    norm = nn.InstanceNorm2d(8, affine=True, track_running_stats=True)
    net = nn.Sequential(nn.Conv2d(3, 8, 3), norm, nn.ReLU(), nn.Flatten(), nn.Linear(288, 4))
    with pytest.raises(UnsupportedTypeError, match="fallback=True"):
        quantize_aware(net.eval(), split(), RECIPE, images())
    trained = quantize_aware(net, split(), RECIPE, images(), fallback=True)
    assert [*left_out(trained)] == ["1"]
    (stays,) = (m for m in trained.modules() if isinstance(m, nn.InstanceNorm2d))
    assert stays.running_mean is not None
    assert norm.running_mean is not None
    assert not torch.equal(stays.running_mean, norm.running_mean)
    assert not norm.running_mean.any(), "the input is untouched"


REFUSED: dict[str, tuple[Callable[[Any, Tensor], Any], str]] = {
    "several values": (lambda s, x: torch.max(s.a(x), 1), "one tensor of real numbers"),
    "positions": (lambda s, x: torch.max(s.a(x), 1)[1] * 1.0, "one tensor of real numbers"),
    "whole numbers": (lambda s, x: F.relu(s.a(x).argmax(1)), "one tensor of real numbers|argmax"),
    "a size": (lambda s, x: s.a(x).cumsum(x.size(0) // 99), "does not know the operator cumsum"),
    "an output of numbers": (lambda s, x: (s.a(x), x.shape), "found a size at '1'"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_stay_is_refused(name: str) -> None:
    from tests.support.tricky_nets import Net

    how, said = REFUSED[name]
    with pytest.raises(UnsupportedTypeError, match=said):
        quantize_static(Net(how, a=nn.Conv2d(3, 4, 1)), numbers(2, 3, 4, 4), fallback=True)


@torch.no_grad()
def test_an_operator_may_have_the_name_of_a_modules_method(tmp_path: Path) -> None:
    from tests.support.tricky_nets import Net

    def network() -> nn.Module:
        torch.manual_seed(0)
        return Net(lambda s, x: s.a(x).double(), a=nn.Linear(6, 4))

    net, x = network().eval(), numbers(8, 6)
    small = quantize_static(net, x, fallback=True)
    assert (small(x) - net(x)).norm() <= 0.05 * net(x).norm()
    save(small, tmp_path / "named")
    assert torch.equal(load(tmp_path / "named", network)(x), small(x))


# what an operator gives that is read: how many operators are computed for it
COUNTS = {
    "a value and its place": 2, "by name": 1, "sequences": 1, "states": 2, "a cell": 1,
    "weights of attention": 2,
}  # fmt: skip


@pytest.mark.parametrize("name", PARTS)
@torch.no_grad()
def test_one_tensor_of_several_stays(name: str, tmp_path: Path) -> None:
    net, x = parts(name), numbers(5, 3, 6, 4)
    small = quantize_static(net, x, fallback=True)
    assert len(left_out(small)) == COUNTS[name]
    for found, wanted in zip(tensors_in(small(x)), tensors_in(net(x)), strict=True):
        assert (found - wanted).norm() <= 0.05 * wanted.norm()
    save(small, tmp_path / "parts")
    again = load(tmp_path / "parts", lambda: parts(name))
    for other, right in zip(tensors_in(again(x)), tensors_in(small(x)), strict=True):
        assert torch.equal(other, right)
