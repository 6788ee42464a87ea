"""Networks whose forward branches on sizes are followed for images of the batch's size."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn
from torch.nn import functional as F

import compression as c
from compression.errors import CheckpointError, CompressionError, UnsupportedTypeError
from compression.graph import trace
from compression.integer import lacking
from compression.storage.structure import restructure
from tests.support.tricky_nets import conv


def images(count: int = 8, size: int = 18) -> Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(count))


class UNet(nn.Module):
    """As people write it: it refuses odd sizes, and fits what it upsamples to what it kept."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.down, self.inner = conv(3, 16, 3, padding=1), conv(16, 16, 3, stride=2, padding=1)
        self.mid, self.up = conv(16, 16, 3, stride=2, padding=1), conv(32, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        if height % 2 or width % 2:
            raise ValueError(f"sizes must be even, found {height}x{width}")
        kept = F.relu(self.down(x))
        low = F.relu(self.mid(F.relu(self.inner(kept))))
        wide = F.interpolate(low, scale_factor=2)
        more = [kept.size(2) // 2 - wide.size(2), kept.size(3) // 2 - wide.size(3)]
        if any(more):
            wide = F.pad(wide, (0, more[1], 0, more[0])) if min(more) > 0 else wide[:, :, :9, :9]
        wide = F.interpolate(wide, size=kept.shape[2:], mode="nearest")
        found: Tensor = self.up(torch.cat([kept, wide], 1))
        return found


class By(nn.Module):
    """A layer, and what a function makes of it and of its inputs."""

    def __init__(self, forward: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.how = conv(3, 8, 3, padding=1), forward
        self.groups, self.each = nn.GroupNorm(4, 8), nn.InstanceNorm2d(8)
        for parameter in self.groups.parameters():
            nn.init.uniform_(parameter, 0.5, 1.5)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.how(self, x)
        return found


def rows(net: By, x: Tensor) -> Tensor:
    return torch.cat([net.a(x[:, :, i : i + 1]) for i in range(0, x.shape[2], 6)], 2)


NETS: dict[str, Any] = {
    "a U-Net": UNet,
    "a loop over rows": lambda: By(rows),
    "a border by the size": lambda: By(lambda s, x: F.pad(s.a(x), (0, -x.shape[3] % 4, 1, 0))),
    "a border of ones": lambda: By(lambda s, x: F.pad(s.a(x), [x.dim() - 3] * 4, value=1.0)),
    "a shape taken over": lambda: By(lambda s, x: s.a(x).flatten(1).view_as(s.a(x)) + s.a(x)),
    "a kind": lambda: By(lambda s, x: s.a(x) if x.dtype.is_floating_point and x.dim() > 3 else x),
    "a norm of groups": lambda: By(lambda s, x: F.relu(s.groups(s.a(x)))),
    "a norm of groups, called": lambda: By(
        lambda s, x: F.group_norm(s.a(x), 2, s.groups.weight * 2, None, 0.1)
    ),
    "a norm of each channel": lambda: By(lambda s, x: s.each(s.a(x))),
    "a sum": lambda: By(lambda s, x: s.a(x).sum((2, -1))),
    "a size times": lambda: By(lambda s, x: s.a(x) * x.shape[3]),
}  # fmt: skip


@pytest.mark.parametrize("executor", ["native", "onednn", None])
@pytest.mark.parametrize("name", NETS)
@torch.no_grad()
def test_they_are_int8_from_end_to_end(name: str, executor: str | None, tmp_path: Path) -> None:
    net, x = NETS[name]().eval(), images()
    static = c.quantize_static(net, x)
    wanted, found = net(x), static(x)
    assert static.shown.sizes == (3, 18, 18)
    assert not c.left_out(static)
    assert (found - wanted).norm() <= 0.05 * wanted.norm(), "8 bits, four layers"
    c.save(static, tmp_path / "static.safetensors")
    again = c.load(tmp_path / "static.safetensors", NETS[name])
    assert torch.equal(again(x[:3]), static(x[:3]))
    if executor and not lacking(executor):
        deployed = c.deploy(again, x, executor=executor)
        assert (deployed(x[:5]) - static(x[:5])).abs().max() <= (
            0.05 if executor != "native" else 0
        )


def test_images_of_other_sizes_are_refused() -> None:
    static = c.quantize_static(UNet().eval(), images())
    with pytest.raises(CompressionError, match=r"\(N, 3, 18, 18\).*found \(2, 3, 20, 20\)"):
        static(images(2, 20))
    train = c.Split(images(16, 20), torch.zeros(16, 20, 20).long(), prepare=lambda x: x)
    recipe = c.Recipe(epochs=1, batch_size=8, learning_rate=0.01)
    with pytest.raises(CompressionError, match=r"quantized for images \(N, 3, 18, 18\)"):
        c.quantize_aware(UNet().eval(), train, recipe, images())


def test_they_train_with_rounding() -> None:
    train = c.Split(images(16), torch.zeros(16, 18, 18).long(), prepare=lambda x: x)
    recipe = c.Recipe(epochs=1, batch_size=8, learning_rate=0.01)
    trained = c.quantize_aware(UNet().eval(), train, recipe, images())
    assert trained(images(2)).shape == (2, 4, 18, 18)


def test_what_takes_any_size_stays_so() -> None:
    net = nn.Sequential(conv(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    static = c.quantize_static(net.eval(), images())
    assert static.shown.sizes is None
    assert static(images(2, 30)).shape == (2, 4)


@pytest.mark.parametrize(
    ("how", "said"),
    [
        (lambda s, x: s.a(x) if len(x) > 4 else x, "cannot be traced"),
        (lambda s, x: s.a(x) if x.size(0) > 4 else x, "inputs to control flow"),
        (lambda s, x: s.a(x) if x.mean() > 0 else x, "inputs to control flow"),
        (lambda s, x: s.a(x) * x.shape[0], "mul of sizes"),
        (lambda s, x: s.a(x).cumsum(x.dim() - 2), "does not know the operator cumsum"),
    ],
    ids=["len of the batch", "the batch", "values", "times the batch", "an operator"],
)  # fmt: skip
def test_what_depends_on_the_batch_or_on_values_is_refused(how: Any, said: str) -> None:
    with pytest.raises(UnsupportedTypeError, match=said):
        c.quantize_static(By(how).eval(), images())


def test_nothing_is_computed_and_nothing_changes() -> None:
    net = UNet().eval()
    before = copy.deepcopy(net.state_dict())
    traced = trace(net, sizes=(3, 18, 18))
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert not any(type(buffer) is not Tensor for buffer in traced.buffers()), "no fake tensor"
    with torch.no_grad():
        assert torch.equal(traced(images(5)), net(images(5)))


@pytest.mark.parametrize("sizes", [[3, -1], [3, 2.5], [3, 2**20], "3", [2**13, 2**13], [True]])
def test_a_file_of_no_sizes_is_refused(sizes: Any) -> None:
    with pytest.raises(CheckpointError, match="unknown sizes of an image"):
        restructure(UNet(), {"kind": "static", "num_bits": {}, "sizes": sizes})


def test_the_file_tells_the_sizes(tmp_path: Path) -> None:
    c.save(c.quantize_static(UNet().eval(), images()), tmp_path / "static.safetensors")
    with safe_open(tmp_path / "static.safetensors", "pt") as file:
        held = json.loads(file.metadata()["dnn-compression"])
    assert held["structure"]["sizes"] == [3, 18, 18]


def test_channels_of_them_go() -> None:
    net, x = UNet().eval(), images(2)
    small = c.remove_channels(net, x[:1], macs=0.7, multiple_of=4)
    assert small(x).shape == net(x).shape
    assert small(images(2, 20)).shape == (2, 4, 20, 20), "it is the user's own forward"
