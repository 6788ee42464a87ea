"""Attention in shifted windows, written out: what torchvision computes, for maps of one size."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import SwinTransformer
from torchvision.models.swin_transformer import PatchMerging, ShiftedWindowAttention

from compression.errors import CheckpointError, CompressionError, UnsupportedTypeError
from compression.layers import left_out
from compression.quantization import quantize_aware, quantize_static
from compression.quantization.windows import WindowAttention, shown_sizes, write_out_windows
from compression.storage import load, save
from compression.storage.structure import restructure, structure_of
from compression.training import Recipe, Split
from tests.support.transformer_nets import lively, swin

# maps: (rows and columns, window, shift) that are whole windows, padded, or one window on a side
CASES = {
    "whole windows": ((8, 12), (4, 4), (2, 2)),
    "not shifted": ((8, 12), (4, 4), (0, 0)),
    "padded": ((9, 10), (4, 4), (2, 2)),
    "oblong windows": ((8, 9), (4, 3), (2, 1)),
    "one window in a column": ((4, 12), (4, 4), (2, 2)),
    "less than a window": ((3, 5), (7, 7), (3, 3)),
}


@torch.no_grad()
@pytest.mark.parametrize("case", CASES)
def test_written_out_it_computes_what_torchvision_does(case: str) -> None:
    size, window, shift = CASES[case]
    torch.manual_seed(0)
    held = lively(ShiftedWindowAttention(12, list(window), list(shift), 3)).double()
    x = torch.randn(2, *size, 12, dtype=torch.float64)
    assert torch.allclose(WindowAttention(held, size)(x), held(x), rtol=1e-12, atol=1e-12)  # type: ignore[arg-type]


@torch.no_grad()
@pytest.mark.parametrize("size", [(8, 8), (7, 8), (8, 5), (3, 3)])
def test_merging_takes_odd_maps(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    net, x = nn.Sequential(PatchMerging(6)), torch.randn(2, *size, 6)
    wanted = net(x)
    assert torch.equal(write_out_windows(net, {"0": size})(x), wanted)


def test_a_map_of_another_size_is_refused_also_of_as_many_pixels() -> None:
    model, x = swin()
    small = quantize_static(model, x)
    for other in (torch.zeros(2, 3, 64, 64), torch.zeros(2, 3, 16, 64)):
        with pytest.raises(RuntimeError, match="multiply up to the size"):
            small(other)


def test_what_hooks_alter_or_two_sizes_share_stays_whole() -> None:
    model, x = swin()
    first: Any = model.get_submodule("features.1.0.attn")
    handle = first.register_forward_hook(lambda _, __, out: out + 1)
    with pytest.raises(UnsupportedTypeError, match=r"shifted_window_attention at features\.1\.0"):
        quantize_static(model, x)
    small = quantize_static(model, x, fallback=True)
    assert [name for name in left_out(small) if "attn" in name or "window" in name]
    handle.remove()
    assert len(shown_sizes(model, lambda: model(x))) == 5
    assert shown_sizes(model, lambda: (model(x), model(torch.zeros(1, 3, 40, 40)))) == {}


def test_the_merging_of_clips_is_not_that_of_images() -> None:
    torch.manual_seed(0)
    model, clips = nn.Sequential(PatchMerging(6)).eval(), torch.randn(2, 4, 6, 8, 6)
    assert shown_sizes(model, lambda: model(clips)) == {}
    with pytest.raises(UnsupportedTypeError, match="_patch_merging_pad at 0"):
        quantize_static(model, clips)


@pytest.mark.parametrize("fallback", [False, True])
def test_files_say_the_sizes(tmp_path: Path, fallback: bool) -> None:
    model, x = swin()
    small = quantize_static(model, x, fallback=fallback)
    assert left_out(small) == {}
    save(small, tmp_path / "small")
    assert structure_of(small)["windows"]["features.1.0.attn"] == [8, 8]  # type: ignore[index]
    assert torch.equal(load(tmp_path / "small", lambda: swin()[0])(x), small(x))


def forged(**windows: Any) -> dict[str, Any]:
    return {"kind": "static", "num_bits": {}, "windows": windows}


@pytest.mark.parametrize(
    "size", [[8], [8, 0], [8, -8], [8, 8.0], [True, 8], "88", [2**40, 8], None]
)
def test_a_size_that_none_of_our_versions_wrote_is_refused(size: object) -> None:
    with pytest.raises(CheckpointError, match="unknown sizes of windows"):
        restructure(swin()[0], forged(**{"features.1.0.attn": size}))
    with pytest.raises(CheckpointError, match="unknown sizes of windows"):
        restructure(swin()[0], forged() | {"windows": [size]})


def test_sizes_of_nothing_and_of_too_much_are_refused() -> None:
    for name in ("features.9.attn", "head"):
        with pytest.raises(
            CompressionError, match=f"'{name}': expected attention in windows, found"
        ):
            restructure(swin()[0], forged(**{name: [8, 8]}))
    large = {"features.1.0.attn": [2**14, 2], "features.1.1.attn": [2**14, 2**14]}
    many = {
        name: [1_022, 1_022] for name in ("features.1.1.attn", "features.3.1.attn", "features.2")
    }
    for sizes in (large, many):
        with pytest.raises(CompressionError, match="of their windows would hold"):
            restructure(swin()[0], forged(**sizes))


def test_torchvisions_own_network_has_no_layer_in_float() -> None:
    torch.manual_seed(0)
    net = lively(SwinTransformer([4, 4], 24, [2, 2], [3, 6], [7, 7], num_classes=5))
    x: Tensor = torch.randn(2, 3, 60, 44)
    small = quantize_static(net, x)
    assert left_out(small) == {}
    with torch.no_grad():
        wanted, found = net(x), small(x)
    assert 10 * torch.log10(wanted.square().sum() / (wanted - found).square().sum()) > 25
    split = Split(x, torch.tensor([0, 1]), prepare=lambda x: x)
    trained = quantize_aware(net, split, Recipe(epochs=2, batch_size=2, learning_rate=0.1), x)
    held = {name: t for name, t in trained.state_dict().items() if "held" in name}
    assert held
    for name, constant in held.items():
        assert torch.equal(constant, small.state_dict()[name]), "what pads is not trained"
