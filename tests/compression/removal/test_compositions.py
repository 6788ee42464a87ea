"""Networks without channels go through every technique, file and executor as others do."""

import importlib.util
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from compression.accounting import count_parameters
from compression.architectures import Architecture
from compression.clustering import share_weights
from compression.graph import fold_batch_norm
from compression.integer import EXECUTORS, deploy, device_of, export_onnx, lacking
from compression.narrow import recorded_widths
from compression.pruning import prune_l1_global, sparsity
from compression.quantization import cast, quantize_dynamic, quantize_static, quantize_weights
from compression.recalibration import recalibrate_batch_norm
from compression.removal import remove_channels
from compression.storage import load, save
from compression.training import fit
from tests.support.channel_cases import FOLLOWED
from tests.support.nets import RECIPE, images, residual, split
from tests.support.storage_nets import digest


def smaller(seed: int = 0) -> nn.Module:
    return remove_channels(residual(seed), images(2), macs=0.6, multiple_of=2)


TECHNIQUES: dict[str, Callable[[nn.Module], nn.Module]] = {
    "none": lambda m: m,
    "twice": lambda m: remove_channels(m, images(2), parameters=0.7, multiple_of=1),
    "pruned": lambda m: prune_l1_global(m, amount=0.5),
    "shared": lambda m: share_weights(m, num_clusters=4),
    "recalibrated": lambda m: recalibrate_batch_norm(m, images()),
    "trained": lambda m: (fit(m, split(16), RECIPE), m)[1],
    "static": lambda m: quantize_static(m, images()),
    "dynamic": quantize_dynamic,
    "8 bits": lambda m: quantize_weights(m),
    "3 bits of dynamic": lambda m: quantize_weights(quantize_dynamic(m), num_bits=3),
    "float16": lambda m: cast(m, torch.float16),
    "bfloat16 of 4 bits": lambda m: cast(quantize_weights(m, num_bits=4), torch.bfloat16),
}


@pytest.mark.parametrize("name", TECHNIQUES)
@torch.no_grad()
def test_files_give_each_composition_back(name: str, tmp_path: Path) -> None:
    with torch.enable_grad():
        model = TECHNIQUES[name](smaller()).eval()
    save(model, tmp_path / "model.safetensors", entropy_coded=name == "none")
    again = load(tmp_path / "model.safetensors", lambda: residual(seed=5))
    assert digest(again) == digest(model)
    assert torch.equal(again(images()), model(images()))
    assert recorded_widths(again) == recorded_widths(model) != {}
    save(again, tmp_path / "again.safetensors", entropy_coded=name == "none")
    assert (tmp_path / "again.safetensors").read_bytes() == (
        tmp_path / "model.safetensors"
    ).read_bytes()


def test_twice_is_smaller_than_once_and_zeros_are_as_asked() -> None:
    once = smaller()
    assert count_parameters(TECHNIQUES["twice"](once)) <= 0.7 * count_parameters(once)
    assert sparsity(TECHNIQUES["pruned"](once)) == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("executor", [name for name in EXECUTORS if device_of(name) == "cpu"])
def test_executors_predict_as_the_reference_does(executor: str) -> None:
    if reason := lacking(executor):
        pytest.skip(reason)
    static = quantize_static(smaller(), images())
    found = deploy(static, images(), executor=executor)(images())
    torch.testing.assert_close(found, static(images()), rtol=0, atol=0.06)


@pytest.mark.skipif(not importlib.util.find_spec("onnx"), reason="needs onnx")
def test_onnx_takes_them(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    size = export_onnx(quantize_static(smaller(), images()), path, images(1))
    assert size == path.stat().st_size


def test_a_named_architecture_comes_back(tmp_path: Path) -> None:
    architecture = Architecture("five-layer-cnn", 4)
    x = torch.randn(1, 3, 32, 32)
    model = remove_channels(architecture().eval(), x, parameters=0.4, multiple_of=4)
    save(model, tmp_path / "model.safetensors", architecture=architecture)
    again = load(tmp_path / "model.safetensors")
    assert digest(again) == digest(model)
    with torch.no_grad():
        assert torch.equal(again(x), model(x))


def test_pickles_hold_the_whole_network(tmp_path: Path) -> None:
    model = smaller()
    torch.save(model, tmp_path / "model.pt")
    again = torch.load(tmp_path / "model.pt", weights_only=False)
    assert torch.equal(again(images()), model(images()))
    assert recorded_widths(again) == recorded_widths(model)


def test_folding_keeps_what_it_computes() -> None:
    model = smaller()
    torch.testing.assert_close(fold_batch_norm(model)(images()), model(images()))


class Within(nn.Module):
    """A network of which a part has lost channels before."""

    def __init__(self) -> None:
        super().__init__()
        self.part, self.more = (
            residual(),
            nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 2)),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.more(self.part(x))  # type: ignore[no-any-return]


def test_parts_that_were_smaller_before(tmp_path: Path) -> None:
    model = Within().eval()
    model.part = smaller()
    model = remove_channels(model, images(2), macs=0.7, multiple_of=1)
    save(model, tmp_path / "model.safetensors")
    again = load(tmp_path / "model.safetensors", Within)
    assert digest(again) == digest(model)
    assert recorded_widths(again) == recorded_widths(model)
    whole = remove_channels(Within().eval(), images(2), macs=0.7, multiple_of=1)
    whole.part = remove_channels(whole.part, images(2), macs=0.7, multiple_of=1)  # type: ignore[arg-type]
    save(whole, tmp_path / "model.safetensors")
    assert digest(load(tmp_path / "model.safetensors", Within)) == digest(whole)


KINDS = (
    "groups",
    "depthwise",
    "transposed",
    "scale",
    "place embedding",
    "tied",
    "language",
    "shuffle",
)


@pytest.mark.parametrize("name", KINDS)
def test_files_of_every_kind_of_layer(name: str, tmp_path: Path) -> None:
    model, x = FOLLOWED[name]()
    cut = remove_channels(model.eval(), (x,), parameters=0.7, multiple_of=1)
    assert count_parameters(cut) <= 0.7 * count_parameters(model)
    save(cut, tmp_path / "model.safetensors")
    again = load(tmp_path / "model.safetensors", lambda: FOLLOWED[name]()[0].eval())
    assert digest(again) == digest(cut)
    with torch.no_grad():
        assert torch.equal(again(x), cut(x))
