"""Structured pruning: which filters go, and that those of the outputs never do."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import squeezenet1_1

from compression.errors import CompressionError, UnsupportedTypeError
from compression.layers import filters, left_out
from compression.pruning import prune_ln_structured


class Made(nn.Module):
    """A network of given layers and a given forward."""

    def __init__(self, how: Callable[..., object], **layers: nn.Module) -> None:
        super().__init__()
        self.how = how
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, x: Tensor) -> object:
        return self.how(self, x)


def dead(model: nn.Module, name: str) -> int:
    layer = model.get_submodule(name)
    rows = filters(layer.get_parameter("weight").detach(), layer)
    return int((rows.flatten(1) == 0).all(1).sum())


def conv(inputs: int, outputs: int, **options) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1, **options)


def sizes_of(m: nn.Module, x: Tensor) -> Tensor:
    hidden = m.a(x).relu()
    flat: Tensor = m.b(hidden).reshape(hidden.size(0), -1)
    return flat


OUTPUTS: dict[str, tuple[nn.Module, set[str]]] = {
    "a convolution": (nn.Sequential(conv(3, 8), nn.ReLU(), conv(8, 4), nn.ReLU()), {"2"}),
    "a transposed convolution": (
        nn.Sequential(conv(3, 8), nn.BatchNorm2d(8), nn.ConvTranspose2d(8, 4, 2), nn.Flatten()),
        {"2"},
    ),
    "a sum": (
        Made(lambda m, x: m.c(m.a(x)) + m.b(x), a=conv(3, 8), b=conv(3, 4), c=conv(8, 4)),
        {"b", "c"},
    ),
    "several": (
        Made(
            lambda m, x: {"all": (m.b(h := m.a(x)), m.c(h))},
            a=conv(3, 8),
            b=conv(8, 4),
            c=conv(8, 4),
        ),
        {"b", "c"},
    ),
    "a linear layer": (
        Made(lambda m, x: m.c(m.a(x).flatten(1)), a=conv(3, 8), c=nn.Linear(8 * 36, 4)),
        {"c"},
    ),
    "sizes of an inner layer": (Made(sizes_of, a=conv(3, 8), b=conv(8, 4)), {"b"}),
    "a registration that comes first": (
        Made(lambda m, x: m.head(m.body(x)), head=conv(8, 4), body=conv(3, 8)),
        {"head"},
    ),
}


@pytest.mark.parametrize("name", OUTPUTS)
def test_the_layers_that_make_the_outputs_stay(name: str) -> None:
    model, kept = OUTPUTS[name]
    pruned = prune_ln_structured(model, amount=0.5)
    assert set(left_out(pruned)) == {f"{layer}.weight" for layer in kept}
    for layer, module in pruned.named_modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            assert dead(pruned, layer) == (0 if layer in kept else 4), layer


def test_the_classes_of_a_published_network_stay() -> None:
    torch.manual_seed(0)
    pruned = prune_ln_structured(squeezenet1_1(num_classes=10), amount=0.3)
    assert dead(pruned, "classifier.1") == 0
    assert dead(pruned, "features.12.expand3x3") == round(0.3 * 256)


@pytest.mark.parametrize(
    ("layer", "channels"),
    [
        (nn.ConvTranspose2d(4, 10, 2), 10),
        (nn.ConvTranspose2d(4, 12, 2, groups=2), 12),
        (nn.ConvTranspose1d(4, 10, 2), 10),
        (nn.Conv2d(8, 8, 3, groups=8), 8),
        (nn.Conv3d(4, 6, 2, groups=2), 6),
    ],
)
def test_a_network_of_one_layer_loses_output_channels(layer: nn.Module, channels: int) -> None:
    pruned = prune_ln_structured(nn.Sequential(layer), amount=0.5)
    assert dead(pruned, "0") == channels // 2
    assert left_out(pruned) == {}


def test_the_smallest_filters_of_a_transposed_convolution_go() -> None:
    layer = nn.ConvTranspose2d(2, 4, 1, groups=2, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[4.0, 1.0], [2.0, 3.0]])[..., None, None])
    pruned = prune_ln_structured(nn.Sequential(layer), amount=0.5)
    assert pruned[0].weight.flatten().tolist() == [4.0, 0.0, 0.0, 3.0]
    rows = prune_ln_structured(nn.Sequential(nn.Conv2d(4, 4, 3)), amount=0.5, dim=1)[0].weight
    assert int((rows.transpose(0, 1).flatten(1) == 0).all(1).sum()) == 2


def test_a_network_that_is_all_outputs_is_refused() -> None:
    model = Made(lambda m, x: (m.a(x), m.b(x)), a=conv(3, 8), b=conv(3, 4))
    with pytest.raises(CompressionError, match="does not make the network's outputs, found a, b"):
        prune_ln_structured(model, amount=0.5)


def test_a_network_that_cannot_be_traced_names_its_outputs() -> None:
    def branching(m: nn.Module, x: Tensor) -> Tensor:
        hidden = m.a(x)
        outputs: Tensor = m.b(hidden if hidden.sum() > 0 else -hidden)
        return outputs

    model = Made(branching, a=conv(3, 8), b=conv(8, 4))
    with pytest.raises(UnsupportedTypeError, match=r"outputs=\('head',\)"):
        prune_ln_structured(model, amount=0.5)
    pruned = prune_ln_structured(model, amount=0.5, outputs=("b",))
    assert [dead(pruned, name) for name in "ab"] == [4, 0]


def test_a_weight_that_an_output_shares_stays() -> None:
    model = nn.Sequential(conv(4, 4), nn.ReLU(), conv(4, 4), nn.ReLU(), conv(4, 4))
    model[4].weight = model[0].weight
    pruned = prune_ln_structured(model, amount=0.5)
    assert [dead(pruned, name) for name in "024"] == [0, 2, 0]
    assert pruned[0].weight is pruned[4].weight
