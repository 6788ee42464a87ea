"""Layers of three dimensions on the executors' own kernels: to the bit what the reference gives."""

import warnings
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compression.integer import code_differences, lacking, lower_native, lower_triton
from compression.integer.native import library
from compression.quantization import StaticQuantizedModel, quantize_static
from tests.support.integer_nets import numbers
from tests.support.interpreter import lacking_interpreter
from tests.support.tricky_nets import Net

SIDES = 5, 6, 9


def after(*layers: nn.Module, channels: int = 8) -> nn.Module:
    """Layers after a stem whose outputs are at least 0: its border holds the code 0."""
    return nn.Sequential(nn.Conv3d(3, channels, 1), nn.ReLU(), *layers)


def net(forward: Callable[..., Tensor], **layers: nn.Module) -> nn.Module:
    return Net(lambda s, x: forward(s, torch.relu(s.first(x))), first=nn.Conv3d(3, 8, 1), **layers)


def tokens(s: nn.Module, x: Tensor) -> Tensor:
    y = x.permute(0, 2, 3, 4, 1)
    y = y + s.up(F.gelu(s.down(s.norm(y))))  # type: ignore[operator]
    return s.last(y.permute(0, 4, 1, 2, 3))  # type: ignore[operator, no-any-return]


NETS: dict[str, Callable[[], nn.Module]] = {
    "3x3x3": lambda: after(nn.Conv3d(8, 6, 3, padding=1)),
    "zeros of a border that is none": lambda: nn.Conv3d(3, 20, 3, padding=1),
    "every side its own": lambda: after(
        nn.Conv3d(8, 6, (2, 3, 4), (1, 2, 3), (1, 0, 2), dilation=(2, 1, 1))
    ),
    "frames alone": lambda: after(nn.Conv3d(8, 6, (3, 1, 1), padding=(1, 0, 0))),
    "pixels of a frame": lambda: after(nn.Conv3d(8, 6, (1, 3, 3), (1, 2, 2), (0, 1, 1))),
    "far apart": lambda: after(nn.Conv3d(8, 6, 3, padding=2, dilation=2)),
    "odd channels": lambda: after(nn.Conv3d(7, 70, 3, padding=1), channels=7),
    "many channels": lambda: after(nn.Conv3d(64, 80, 3, 2, 1), channels=64),
    "as large as the clip": lambda: after(nn.Conv3d(8, 6, SIDES)),
    "a filter per channel": lambda: after(nn.Conv3d(8, 8, 3, padding=1, groups=8)),
    "filters of 20 channels": lambda: after(
        nn.Conv3d(20, 20, (3, 2, 3), 2, 1, groups=20), channels=20
    ),
    "groups": lambda: after(nn.Conv3d(8, 12, 3, padding=1, groups=2)),
    "groups of 4": lambda: after(nn.Conv3d(64, 64, 3, padding=1, groups=16), channels=64),
    "transposed": lambda: after(nn.ConvTranspose3d(8, 6, 3, 2, 1, output_padding=1)),
    "transposed, every side its own": lambda: after(
        nn.ConvTranspose3d(8, 6, (1, 2, 3), (1, 3, 2), (0, 1, 0), dilation=(1, 1, 2))
    ),
    "largest": lambda: after(nn.MaxPool3d(3, 2, 1), nn.Conv3d(8, 6, 1)),
    "largest of numbers below 0": lambda: nn.Sequential(
        nn.Conv3d(3, 8, 1), nn.MaxPool3d((2, 3, 2), (1, 2, 2), (1, 1, 0), ceil_mode=True)
    ),
    "averages": lambda: after(nn.AvgPool3d((2, 3, 2), 2, (1, 1, 0)), nn.Conv3d(8, 6, 1)),
    "averages of what there is": lambda: after(
        nn.AvgPool3d(3, 2, 1, count_include_pad=False), nn.Conv3d(8, 6, 1)
    ),
    "average per frame": lambda: after(nn.AdaptiveAvgPool3d((5, 1, 3)), nn.Conv3d(8, 6, 1)),
    "mean": lambda: net(lambda s, x: s.last(x.mean((2, 3, 4))), last=nn.Linear(8, 5)),
    "nearest": lambda: net(
        lambda s, x: s.last(F.interpolate(x, scale_factor=2)), last=nn.Conv3d(8, 6, 3)
    ),
    "gates": lambda: net(
        lambda s, x: s.last(x * torch.sigmoid(s.up(F.relu(s.down(F.adaptive_avg_pool3d(x, 1)))))),
        down=nn.Conv3d(8, 4, 1), up=nn.Conv3d(4, 8, 1), last=nn.Conv3d(8, 6, 3),
    ),
    "sums and channels beside others": lambda: net(
        lambda s, x: s.last(torch.cat([x, F.silu(s.middle(x)) + x, x], 1)),
        middle=nn.Conv3d(8, 8, 3, padding=1), last=nn.Conv3d(24, 6, 1),
    ),
    "frames after frames": lambda: net(
        lambda s, x: s.last(torch.cat([x, s.middle(x)], 2)[:, :, 1::2]),
        middle=nn.Conv3d(8, 8, 3, padding=1), last=nn.Conv3d(8, 6, (3, 1, 1)),
    ),
    "frames as images": lambda: net(
        lambda s, x: s.last(s.middle(x[:, :, 0]).unflatten(1, (8, 2))),
        middle=nn.Conv2d(8, 16, 3, padding=1), last=nn.Conv3d(8, 6, (1, 3, 3)),
    ),
    "tokens": lambda: net(
        tokens, norm=nn.LayerNorm(8), down=nn.Linear(8, 16), up=nn.Linear(16, 8),
        last=nn.Conv3d(8, 6, 3),
    ),
    "flattened": lambda: net(
        lambda s, x: s.last(s.middle(x).flatten(1)),
        middle=nn.Conv3d(8, 4, 2), last=nn.Linear(4 * 4 * 5 * 8, 5),
    ),
}  # fmt: skip


@pytest.fixture(autouse=True)
def tiles_as_before() -> Iterator[None]:
    yield
    if not lacking("native"):
        library().use_amx(1)


def made(name: str) -> tuple[StaticQuantizedModel, Tensor]:
    torch.manual_seed(0)
    network, x = NETS[name]().eval(), numbers(3, 3, *SIDES)
    return quantize_static(network, x), x


@pytest.mark.skipif(bool(lacking("native")), reason=str(lacking("native")))
@pytest.mark.parametrize("amx", [0, 1])
@pytest.mark.parametrize("name", NETS)
@torch.no_grad()
def test_native_gives_every_code_of_the_reference(name: str, amx: int) -> None:
    reference, x = made(name)
    if library().use_amx(amx) != amx:
        pytest.skip("needs a CPU with AMX's int8 products, which Linux lets this process use")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        integer = lower_native(reference, x, keep=True)
    assert torch.equal(integer(x), reference(x))
    assert max(code_differences(reference, integer, x).values()) == (0, 0.0)
    sparing = lower_native(reference, x)  # memory is used again
    assert torch.equal(sparing(x[:2]), reference(x[:2]))


@pytest.mark.skipif(bool(lacking_interpreter()), reason=lacking_interpreter())
@pytest.mark.parametrize("name", [name for name in NETS if name != "groups of 4"])  # 64 channels
@torch.no_grad()
def test_tritons_interpreter_gives_the_references_bits(name: str) -> None:
    reference, x = made(name)
    assert torch.equal(lower_triton(reference, x[:1])(x[:1]), reference(x[:1]))
