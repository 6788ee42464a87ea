"""Static INT8 on networks of other people: right, or refused by name, on every executor of the CPU."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compression.errors import UnsupportedTypeError
from compression.integer import deploy, lacking
from compression.pruning import prune_ln_structured
from compression.quantization import quantize_static
from compression.storage import load, save
from tests.support.functional import Net

# what: (bound, reason)
TOLERANCES = {
    "outputs": (0.05, "8 bits on a few layers of random weights err by 1 to 2%"),
    "dead": (0.02, "a constant is one code of the output off at most"),
}


def conv(*sizes: int, **options: Any) -> nn.Module:
    return nn.Conv2d(*sizes, **options)


def tokens() -> nn.Module:
    net = nn.Sequential(nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 8))
    for layer in (net[0], net[2]):
        layer.weight.data *= torch.logspace(-1, 1, 8)[:, None]  # type: ignore[operator,union-attr]
    return net


def called_twice() -> nn.Module:
    net = Net(
        lambda s, x: s.c(F.relu(s.a(s.b(F.relu(s.a(x)))))).flatten(1),
        **{name: conv(3, 3, 3, padding=1) for name in "abc"},
    )
    net.a.weight.data *= torch.tensor([0.1, 1, 10.0])[:, None, None, None]  # type: ignore[operator,union-attr]
    return net


def dead_filter() -> nn.Module:
    net = nn.Sequential(conv(3, 4, 3), nn.ReLU(), conv(4, 2, 1))
    net[0].weight.data[1], net[0].bias.data[1] = 0, 0.5  # type: ignore[index,union-attr,operator]
    return net


def block(how: Callable[[Any, Tensor], Any]) -> Callable[[], nn.Module]:
    return lambda: Net(
        how, a=conv(3, 3, 3, padding=1), b=conv(3, 8, 3, padding=1), r=nn.ReLU(inplace=True),
        n=nn.BatchNorm1d(192),
    )  # fmt: skip


IMAGES: dict[str, Callable[[], nn.Module]] = {
    "a dead filter with a bias": dead_filter,
    "a ReLU as the last layer": lambda: nn.Sequential(conv(3, 8, 3), nn.Flatten(), nn.ReLU()),
    "a ReLU in place on a shortcut": block(lambda s, x: s.a(s.r(x_ := s.a(x))) + x_),
    "a layer called twice": called_twice,
    "an average over a border": lambda: nn.Sequential(conv(3, 8, 3), nn.AvgPool2d(3, 1, 1)),
    "a divisor": lambda: nn.Sequential(conv(3, 4, 3), nn.AvgPool2d(2, divisor_override=1)),
    "a ceiling without the border": lambda: nn.Sequential(
        conv(3, 4, 3), nn.AvgPool2d(3, 2, 1, ceil_mode=True, count_include_pad=False)
    ),
    "a ceiling with the border": lambda: nn.Sequential(
        conv(3, 4, 3), nn.AvgPool2d(3, 2, 1, ceil_mode=True)
    ),
    "a residual as output": block(lambda s, x: x + s.a(x)),
    "a slice": block(lambda s, x: s.b(x)[:, 1:6, ::2]),
    "a grouped transposed convolution": lambda: nn.Sequential(
        nn.ConvTranspose2d(3, 6, 3, groups=3), nn.ReLU(), nn.ConvTranspose2d(6, 4, 2, groups=2)
    ),
    "a view by shape": block(lambda s, x: s.a(x).view(x.shape[0], x.size(1) * 64)),
    "a sum that broadcasts": block(lambda s, x: s.a(x) + s.a(x).mean((2, 3), keepdim=True)),
    "a sum with itself and a number": block(lambda s, x: (lambda a: 1.0 - (a + a) / 2)(s.a(x))),
    "a clamp above zero": block(lambda s, x: s.a(x).clamp(0.25, 0.75)),
    "a flattened map summed": block(lambda s, x: s.a(x).flatten(1).relu() + s.a(x).flatten(1)),
    "a norm of rows": block(lambda s, x: s.n(s.a(x).flatten(1))),
    "a linear layer on columns": lambda: nn.Sequential(conv(3, 4, 3), nn.Linear(6, 5)),
    "windows that straddle the image": lambda: nn.Sequential(
        conv(3, 2, 8), conv(2, 2, (3, 2), dilation=2, padding="same"), conv(2, 2, 1)
    ),
    "dead branches": block(lambda s, x: [s.b(x), s.a(x)][1]),
}


WITHOUT_KERNEL = {
    "a divisor", "a ceiling with the border", "a grouped transposed convolution",
    "a sum that broadcasts", "a linear layer on columns",
}  # fmt: skip
"""What the native executor refuses; deploy without a choice gives it to another."""


def inputs_of(name: str) -> Tensor:
    return torch.rand(8, 3, 8, 8, generator=torch.Generator().manual_seed(1)) - (
        0 if name == "a dead filter with a bias" else 0.5
    )


def network_of(name: str) -> nn.Module:
    torch.manual_seed(0)
    return IMAGES[name]().eval()


@pytest.mark.parametrize("executor", [None, "native", "onednn"])
@pytest.mark.parametrize("name", IMAGES)
@torch.no_grad()
def test_every_executor_gives_what_the_network_gives(name: str, executor: str | None) -> None:
    net, x = network_of(name), inputs_of(name)
    wanted = net(x.clone())
    small = quantize_static(net, x)
    assert torch.equal(wanted, net(x.clone())), "the input stays"
    if executor and lacking(executor):
        pytest.skip(str(lacking(executor)))
    if name in WITHOUT_KERNEL and executor == "native":
        with pytest.raises(UnsupportedTypeError, match=r"kernel|reshape"):
            deploy(small, x, executor=executor)
        return
    deployed = deploy(small, x, executor=executor)
    for found in (small(x), deployed(x), deployed(x[:1]), deployed(x[:0])):
        right = wanted[: len(found)]
        assert found.shape == right.shape
        assert (found - right).norm() <= TOLERANCES["outputs"][0] * right.norm()


@torch.no_grad()
def test_a_window_within_the_border_of_a_channels_last_map() -> None:
    """torch 2.14.1 crashes where the reference's convolution has a bias and channels-last inputs."""
    torch.manual_seed(0)
    net = nn.Sequential(conv(8, 3, (2, 3)), conv(3, 8, 1, stride=(1, 2), padding=1, dilation=2))
    x = torch.randn(4, 8, 3, 3)
    small = quantize_static(net.eval(), x)
    for model in (small, deploy(small, x, executor="onednn") if not lacking("onednn") else small):
        found = model(x.contiguous(memory_format=torch.channels_last))
        assert (found - net(x)).norm() <= TOLERANCES["outputs"][0] * net(x).norm()


@torch.no_grad()
def test_an_average_of_no_signal() -> None:
    """torch's 2-d pools take a batch of signals for one image, none of them for an error."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv1d(4, 4, 1), nn.AdaptiveAvgPool2d((None, 1))).eval()
    small = quantize_static(net, torch.randn(4, 4, 7))
    assert small(torch.zeros(0, 4, 7)).shape == net(torch.zeros(0, 4, 7)).shape


@torch.no_grad()
def test_linear_layers_on_tokens_have_their_channels_last() -> None:
    torch.manual_seed(0)
    net, x = tokens().eval(), torch.randn(4, 8, 16)
    for options in ({}, {"bias_correction": True}):
        small = quantize_static(net, x, **options)
        for model in (small, deploy(small, x)):
            error = (model(x) - net(x)).norm() / net(x).norm()
            assert error <= TOLERANCES["outputs"][0]


@torch.no_grad()
def test_a_norm_of_tokens_behind_a_linear_layer_is_not_folded(tmp_path: Path) -> None:
    def build() -> nn.Module:
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2)).eval()
        net[1].running_mean.uniform_(-1, 1)  # type: ignore[union-attr,operator]
        return net

    for x in (torch.randn(16, 8, 5), torch.randn(16, 5)):
        net = build()
        small = quantize_static(net, x)
        assert (small(x) - net(x)).norm() <= TOLERANCES["outputs"][0] * net(x).norm()
        save(small, tmp_path / "small.safetensors")
        assert torch.equal(load(tmp_path / "small.safetensors", build)(x), small(x))


@torch.no_grad()
def test_structured_pruning_then_int8_keeps_the_biases() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        conv(3, 16, 3), nn.ReLU(), conv(16, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(128, 5)
    ).eval()
    pruned, x = prune_ln_structured(net, amount=0.5), torch.rand(16, 3, 8, 8)
    error = (quantize_static(pruned, x)(x) - pruned(x)).norm() / pruned(x).norm()
    assert error <= TOLERANCES["dead"][0]


@torch.no_grad()
def test_a_layer_dead_in_calibration_stays_finite() -> None:
    net = nn.Sequential(conv(3, 4, 3), nn.ReLU(), conv(4, 2, 1)).eval()
    net[0].bias.fill_(-100)  # type: ignore[union-attr,operator]
    x = torch.rand(4, 3, 8, 8)
    found = quantize_static(net, x)(100 * x)
    assert torch.isfinite(found).all()
    assert torch.allclose(quantize_static(net, x)(x), net(x), atol=TOLERANCES["dead"][0])


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.uint8])
@torch.no_grad()
def test_other_dtypes_of_networks_and_inputs(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(conv(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3)).eval()
    x = torch.randint(0, 4, (8, 3, 8, 8)).to(dtype)
    other = net if dtype == torch.uint8 else net.to(dtype)
    small = quantize_static(other, [(x, torch.zeros(8))])
    wanted = net.float()(x.float())
    for model in (small, deploy(small, x)):
        assert model(x).dtype == torch.float32
        assert (model(x) - wanted).norm() <= TOLERANCES["outputs"][0] * wanted.norm()


@torch.no_grad()
def test_codes_and_scales_outlive_another_dtype() -> None:
    x = torch.randn(4, 3, 8, 8)
    net = nn.Sequential(conv(3, 4, 3), nn.ReLU(), conv(4, 2, 3))
    small = quantize_static(net, x)
    wanted = small(x)
    for change in (nn.Module.half, nn.Module.double, nn.Module.float):
        assert torch.equal(change(small)(x), wanted)


def test_calibration_warns_of_nothing() -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    net = Net(lambda s, x: s.e(torch.cat([s.p.expand(x.shape[0], -1, -1), x], 1)), e=layer)
    net.p = nn.Parameter(torch.randn(1, 1, 8))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        quantize_static(net.eval(), torch.randn(4, 3, 8), method="percentile", bias_correction=True)


@torch.no_grad()
def test_an_image_without_a_batch_is_scaled_by_its_channels() -> None:
    x, net = (
        torch.randn(3, 8, 8),
        nn.Sequential(conv(3, 8, 3, padding=1), nn.ReLU(), conv(8, 8, 3, padding=1)),
    )
    net[0].weight *= torch.logspace(-1, 1, 8).view(-1, 1, 1, 1)  # type: ignore[operator]
    assert (quantize_static(net, x)(x) - net(x)).norm() <= TOLERANCES["outputs"][0] * net(x).norm()
