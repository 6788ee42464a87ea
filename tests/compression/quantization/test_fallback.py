"""What has no integer arithmetic stays in float where it is asked to, and is named."""

from collections.abc import Callable
from functools import partial
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
from tests.support.integer_nets import numbers
from tests.support.nets import RECIPE, images, split


class Mixed(nn.Module):
    """A norm of groups, an angle to a parameter, a made constant, a softmax over queries."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.GroupNorm(2, 8)
        self.scale = nn.Parameter(torch.rand(8, 1, 1))
        self.bias = nn.Parameter(torch.randn(5, 20))
        self.register_buffer("places", torch.arange(20) % 5)
        self.qkv, self.head = nn.Linear(8, 24), nn.Linear(8, 6)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(torch.atan2(F.silu(self.a(x)), self.scale))
        x = x.flatten(2).transpose(1, 2)
        q, k, v = self.qkv(x).chunk(3, -1)
        seen = torch.maximum(q @ k.transpose(1, 2) * 0.3, self.bias[self.places]).softmax(1)
        return self.head((seen @ v).mean(1))


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
        UnsupportedTypeError, match=r"atan2 at \(test_fallback.*fallback=True\) leaves"
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
    "a size": (lambda s, x: s.a(x).cumsum(x.dim() - 3), "does not know the operator cumsum"),
    "an output of numbers": (lambda s, x: (s.a(x), x.shape), "found a size at '1'"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_stay_is_refused(name: str) -> None:
    from tests.support.tricky_nets import Net

    how, said = REFUSED[name]
    with pytest.raises(UnsupportedTypeError, match=said):
        quantize_static(Net(how, a=nn.Conv2d(3, 4, 1)), numbers(2, 3, 4, 4), fallback=True)


def hidden(s: Any, x: Tensor) -> Tensor:
    _, (h, _) = s.r(s.a(x).mean(3).transpose(1, 2))
    return s.f(torch.cat([h[-2], h[-1]], 1))  # type: ignore[no-any-return]


def cell(s: Any, x: Tensor) -> Tensor:
    return s.f(s.r(s.a(x).flatten(2).transpose(1, 2))[1][0])  # type: ignore[no-any-return]


def attended(s: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    x = s.a(x).flatten(2).transpose(1, 2)
    return s.r(x, x, x)  # type: ignore[no-any-return]


LSTM = partial(nn.LSTM, 8, 4, batch_first=True)
PARTS: dict[str, tuple[Callable[[Any, Tensor], Any], Callable[[], nn.Module], int]] = {
    "a value and its place": (lambda s, x: s.f(s.a(x).max(3)[0].amax(2)), nn.Identity, 2),
    "by name": (lambda s, x: s.f(s.a(x).flatten(2).topk(2).values.mean(2)), nn.Identity, 1),
    "sequences": (lambda s, x: s.r(s.a(x).mean(3).transpose(1, 2))[0], LSTM, 1),
    "states": (hidden, partial(LSTM, bidirectional=True), 2),
    "a cell": (
        lambda s, x: s.f(s.r(s.a(x).flatten(2).transpose(1, 2))[1][0]),
        partial(nn.GRU, 8, 8),
        1,
    ),
    "weights of attention": (attended, partial(nn.MultiheadAttention, 8, 2, batch_first=True), 2),
}


@pytest.mark.parametrize("name", PARTS)
@torch.no_grad()
def test_one_tensor_of_several_stays(name: str, tmp_path: Path) -> None:
    from tests.support.tricky_nets import Net

    how, make, count = PARTS[name]
    torch.manual_seed(0)

    def network() -> nn.Module:
        return Net(how, a=nn.Conv2d(3, 8, 3, padding=1), r=make(), f=nn.Linear(8, 2)).eval()

    net, x = network(), numbers(5, 3, 6, 4)
    small = quantize_static(net, x, fallback=True)
    assert len(left_out(small)) == count
    for found, wanted in zip(tensors_in(small(x)), tensors_in(net(x)), strict=True):
        assert (found - wanted).norm() <= 0.05 * wanted.norm()
    save(small, tmp_path / "parts")
    again = load(tmp_path / "parts", network)
    for other, right in zip(tensors_in(again(x)), tensors_in(small(x)), strict=True):
        assert torch.equal(other, right)
