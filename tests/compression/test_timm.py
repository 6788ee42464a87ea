"""timm's networks: the package that most networks come from, whose layers derive from torch's."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

import compression as c
from compression.architectures import Architecture
from compression.errors import CompressionError
from compression.integer import lacking

pytest.importorskip("timm", reason="timm is not installed")

# name: pixels. Subclassed norms and linear layers, padding by sizes, standardized weights, windows,
# tokens of all images along one axis, averages without their border, a bias made of parts.
NETS = {
    "mobilenetv3_small_050": 64,
    "tf_efficientnet_lite0": 66,
    "resnet26d": 65,
    "regnety_002": 64,
    "nf_regnet_b0": 64,
    "mobilevit_xxs": 64,
    "ecaresnet26t": 64,
    "ghostnet_050": 64,
}


def factory(name: str) -> Architecture:
    return Architecture(f"timm:{name}", 10)


def images(count: int, pixels: int) -> Tensor:
    generator = torch.Generator().manual_seed(count)
    return torch.randn(count, 3, pixels, pixels, generator=generator)


@pytest.mark.parametrize("name", NETS)
@torch.no_grad()
def test_static_int8_runs_on_our_kernels(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, x = factory(name)().eval(), images(4, NETS[name])
    static = c.quantize_static(model, x)
    assert not c.left_out(static)
    wanted, found = model(x), static(x)
    assert (found - wanted).norm() <= 0.2 * wanted.norm(), (
        "8 bits, up to 80 layers of drawn weights"
    )
    c.save(static, tmp_path / "static.safetensors")
    again = c.load(tmp_path / "static.safetensors", factory(name))
    assert torch.equal(again(x), found)
    if not lacking("native"):
        assert torch.equal(c.deploy(again, x, executor="native")(x[:2]), static(x[:2]))


@pytest.mark.parametrize("name", ["mobilenetv3_small_050", "tf_efficientnet_lite0"])
def test_channels_go(name: str, tmp_path: Path) -> None:
    model, x = factory(name)().eval(), images(2, NETS[name])
    small = c.remove_channels(model, x[:1], macs=0.6)
    assert c.count_macs(small, x[:1]) <= 0.6 * c.count_macs(model, x[:1])
    c.save(small, tmp_path / "small.safetensors")
    again = c.load(tmp_path / "small.safetensors", factory(name))
    with torch.no_grad():
        assert torch.equal(again.eval()(x), small(x))


def test_a_file_names_them() -> None:
    model = factory("mobilenetv3_small_050")
    assert model().eval()(images(1, 32)).shape == (1, 10)
    stored = 4 * sum(p.numel() for p in model().parameters())
    assert stored <= model.about_bytes() <= 2 * stored
    with pytest.raises(CompressionError, match=r"timm:NAME is one of timm\.list_models"):
        Architecture("timm:hf-hub:someone/net", 10)
