"""Linear interpolation of codes, and interpolation to a size that another map gives."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compression.affine import QParams
from compression.errors import UnsupportedTypeError
from compression.layers import left_out
from compression.quantization import modules as q
from compression.quantization import quantize_static
from compression.quantization.interpolation import Resizing
from tests.support.functional import Net
from tests.support.integer_nets import numbers

# what: (bound, reason)
TOLERANCES = {
    "codes": (0.5 + 0.13, "a step is rounded; a weight of 2^-12 of 255 codes in two dimensions"),
    "outputs": (0.02, "8 bits on two layers of random weights err by 1%"),
}
CASES: dict[str, tuple[tuple[int, ...], dict[str, Any]]] = {
    "twice as large": ((5, 4), {"scale_factor": 2}),
    "by no whole number": ((5, 7), {"scale_factor": (1.7, 0.6)}),
    "by the factor of the sizes": ((5, 7), {"scale_factor": 1.5, "recompute_scale_factor": True}),
    "to a size": ((5, 7), {"size": (11, 3)}),
    "corners on corners": ((5, 7), {"size": (11, 16), "align_corners": True}),
    "of one pixel": ((1, 1), {"size": (4, 3)}),
    "to one pixel": ((5, 4), {"size": 1}),
    "to its own size": ((5, 4), {"size": (5, 4)}),
    "signals": ((9,), {"scale_factor": 2.5}),
    "volumes": ((3, 4, 2), {"scale_factor": 2, "align_corners": True}),
}
MODES = {1: "linear", 2: "bilinear", 3: "trilinear"}


def qparams(scale: float, zero_point: int) -> QParams:
    zero = torch.tensor(zero_point, dtype=torch.int32)
    return QParams(torch.tensor(scale), zero, symmetric=False)


@pytest.mark.parametrize("name", CASES)
def test_codes_are_those_of_the_interpolated_numbers(name: str) -> None:
    sides, options = CASES[name]
    codes = numbers(2, 3, *sides).mul(60).clamp(-128, 127).to(torch.int8)
    before, after = qparams(0.02, -7), qparams(0.021, 9)
    told = Resizing(**{k: v for k, v in options.items() if k != "size"})
    found = q.QuantizedInterpolation(told, before, after)(codes, options.get("size"))
    real = (codes.double() + 7) * before.scale.double()
    wanted = F.interpolate(real, mode=MODES[len(sides)], **options) / after.scale.double() + 9
    assert found.shape == wanted.shape
    off = (found.double() - wanted.clamp(-128, 127)).abs()
    assert off.max() <= TOLERANCES["codes"][0]


def test_what_keeps_its_size_keeps_its_codes() -> None:
    codes = torch.arange(-128, 128, dtype=torch.int8).view(1, 1, 16, 16)
    same = q.QuantizedInterpolation(Resizing(), qparams(0.3, 5), qparams(0.3, 5))
    assert torch.equal(same(codes, (16, 16)), codes)


NETS: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "to another's size": lambda s, x: F.interpolate(
        s.a(F.avg_pool2d(x, 2)), size=x.shape[-2:], mode="bilinear"
    ),
    "to sizes one by one": lambda s, x: s.b(
        F.interpolate(s.a(F.avg_pool2d(x, 2)), (x.size(2), x.shape[3] - 1), None, "bilinear", True)
    ),
    "nearest, to another's size": lambda s, x: s.b(
        s.a(x) + F.interpolate(s.c(F.max_pool2d(x, 2)), size=x.shape[2:])
    ),
    "nearest-exact, to sizes": lambda s, x: F.interpolate(
        s.a(x), size=[x.shape[2] * 2, 5], mode="nearest-exact"
    ),
    "layers by a factor and to a size": lambda s, x: s.b(s.to_size(s.by(s.a(x)))),
    "a clamp behind it": lambda s, x: F.relu(
        F.interpolate(s.a(x), scale_factor=2, mode="bilinear")
    ),
}


def net_of(how: Callable[[Any, Tensor], Tensor]) -> nn.Module:
    torch.manual_seed(0)
    return Net(
        how, a=nn.Conv2d(3, 4, 1), b=nn.Conv2d(4, 2, 1), c=nn.Conv2d(3, 4, 1),
        by=nn.Upsample(scale_factor=2.0, mode="bilinear"),
        to_size=nn.Upsample((9, 4), mode="bilinear", align_corners=True),
    ).eval()  # fmt: skip


@pytest.mark.parametrize("name", NETS)
@torch.no_grad()
def test_networks_with_it_are_right_in_integers(name: str) -> None:
    net, x = net_of(NETS[name]), numbers(4, 3, 8, 6)
    small = quantize_static(net, x)
    assert not left_out(small)
    assert small(x).shape == net(x).shape
    assert (small(x) - net(x)).norm() <= TOLERANCES["outputs"][0] * net(x).norm()
    assert small(x[:0]).shape == net(x[:0]).shape


@pytest.mark.parametrize("options", [{"mode": "bicubic"}, {"mode": "bilinear", "antialias": True}])
@torch.no_grad()
def test_other_interpolations_stay_in_float_where_they_may(options: dict[str, Any]) -> None:
    def how(s: Any, x: Tensor) -> Tensor:
        return F.interpolate(s.a(x), scale_factor=2, **options)

    net, x = net_of(how), numbers(4, 3, 8, 6)
    with pytest.raises(UnsupportedTypeError, match="does not know the operator interpolate"):
        quantize_static(net, x)
    small = quantize_static(net, x, fallback=True)
    assert set(left_out(small)) == {"interpolate"}
    assert (small(x) - net(x)).norm() <= TOLERANCES["outputs"][0] * net(x).norm()
