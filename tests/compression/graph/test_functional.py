"""Layers that other packages derive from torch's are the layers that they are."""

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import compression as c
from compression.errors import CompressionError
from compression.graph import fold_batch_norm, trace
from compression.integer import lacking
from tests.support import subclasses
from tests.support.subclasses import Head, NormAct, Same, Standardized, network


def images(count: int = 4, size: int = 12) -> Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(count))


def kinds(model: nn.Module) -> list[type[nn.Module]]:
    traced = trace(model)
    return [
        type(traced.get_submodule(str(node.target)))
        for node in traced.graph.nodes
        if node.op == "call_module"
    ]


@torch.no_grad()
def test_a_graph_calls_the_layers_of_torch_by_the_names_of_the_subclasses() -> None:
    model, x = network(), images()
    traced = trace(model)
    assert torch.equal(traced(x), model(x))
    assert [kind for kind in kinds(model) if kind in (nn.BatchNorm2d, nn.Linear)] == [
        nn.BatchNorm2d, nn.BatchNorm2d, nn.Linear,
    ]  # fmt: skip
    assert {"1", "1.act", "3", "6"} <= dict(traced.named_modules()).keys()
    assert not any(node.op == "get_attr" for node in traced.graph.nodes)
    assert [type(model[i]) for i in (1, 6)] == [NormAct, Head], "the model stays"  # type: ignore[index]


@torch.no_grad()
def test_their_batch_norms_are_folded() -> None:
    model, x = network(), images()
    folded = fold_batch_norm(model)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    torch.testing.assert_close(folded(x), model(x), rtol=1e-5, atol=1e-5)


def test_what_computes_by_other_tensors_stays_a_function() -> None:
    class Halved(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return F.linear(x, self.weight / 2, self.bias)

    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = Head(4, 4), Head(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return F.linear(x, self.a.weight, self.b.bias)

    class Batch(nn.BatchNorm1d):
        def forward(self, x: Tensor) -> Tensor:
            return F.batch_norm(x, None, None, self.weight, self.bias, training=True)

    class Twice(nn.Conv1d):
        def forward(self, x: Tensor) -> Tensor:
            first = F.conv1d(x, self.weight, self.bias, padding=1)
            return F.conv1d(first, self.weight, self.bias, dilation=2, padding=2)

    x = torch.randn(3, 4)
    for model in (nn.Sequential(Halved(4, 4)), Shared(), nn.Sequential(Batch(4))):
        assert not kinds(model)
        with torch.no_grad():
            assert torch.equal(trace(model)(x), model.eval()(x))
    twice = nn.Sequential(Twice(4, 4, 3))
    assert kinds(twice) == [nn.Conv1d], "the first call names the layer, the second is another"
    with torch.no_grad():
        assert torch.equal(trace(twice)(x[None].mT), twice(x[None].mT))


@pytest.mark.parametrize("kind", [nn.Conv2d, Same, Standardized])
@torch.no_grad()
def test_static_int8_takes_them_onto_kernels(kind: type[nn.Module], tmp_path: Path) -> None:
    options = {"padding": 0} if kind is Same else {}
    model, x = network(kind, **options), images(16)
    static = c.quantize_static(model, x)
    assert not c.left_out(static)
    wanted, found = model(x), static(x)
    assert (found - wanted).norm() <= 0.05 * wanted.norm(), "8 bits, three layers"
    c.save(static, tmp_path / "static.safetensors")
    again = c.load(tmp_path / "static.safetensors", lambda: network(kind, **options))
    assert torch.equal(again(x), found)
    if not lacking("native"):
        deployed = c.deploy(again, x, executor="native")
        assert torch.equal(deployed(x[:3]), static(x[:3]))


@pytest.mark.parametrize("kind", [nn.Conv2d, Same])
def test_channels_go_and_the_file_tells_the_widths(kind: type[nn.Module], tmp_path: Path) -> None:
    options = {"padding": 0} if kind is Same else {}
    model, x = network(kind, **options), images()
    before = copy.deepcopy(model.state_dict())
    small = c.remove_channels(model, x[:1], macs=0.4)
    assert small[1].num_features == small[0].out_channels < 32  # type: ignore[index]
    assert type(small[1]) is NormAct, "as it was"  # type: ignore[index]
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())
    c.save(small, tmp_path / "small.safetensors")
    again = c.load(tmp_path / "small.safetensors", lambda: network(kind, **options))
    assert torch.equal(again(x), small(x))
    assert again[1].num_features == small[1].num_features  # type: ignore[index]


def test_weights_that_are_made_at_each_call_keep_their_channels() -> None:
    with pytest.raises(CompressionError, match="no channel of the network can go"):
        c.remove_channels(network(Standardized), images(1), macs=0.9, at_least=0.5)


@pytest.mark.parametrize("kind", [nn.Conv2d, Same])
@torch.no_grad()
def test_removed_is_zeroed(kind: type[nn.Module]) -> None:
    """The channels that a norm's factor and shift make 0 go without a trace."""
    options = {"padding": 0} if kind is Same else {}
    model, x = network(kind, **options).double(), images().double()
    dead = torch.arange(32) % 2 == 0
    for tensor in (model[1].weight, model[1].bias, model[0].weight):  # type: ignore[index]
        tensor[dead] = 0.0
    small = c.remove_channels(model, x[:1], macs=0.6, criterion="l1", at_least=0.5)
    assert small[0].out_channels == 16  # type: ignore[index]
    torch.testing.assert_close(small(x), model(x), rtol=1e-12, atol=1e-12)


def test_they_train_with_rounding() -> None:
    model, x = network(), images(32)
    train = c.Split(x, (x.mean((1, 2, 3)) > 0).long(), prepare=lambda x: x)
    recipe = c.Recipe(epochs=1, batch_size=16, learning_rate=0.01)
    trained = c.quantize_aware(model, train, recipe, x)
    assert trained(x).shape == (32, 5)
    assert subclasses.network()(x).shape == (32, 5)
