"""What explain says of a network is what the techniques then do."""

import pytest
import torch
from torch import Tensor, nn

from compression import CompressionError, explain, quantize_static, remove_channels
from compression.errors import UnsupportedTypeError
from compression.quantization.layer import QuantizedLayer


class Mixed(nn.Module):
    """A network with a layer of each fate: free, kept, depthwise, in float."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 32, 3, padding=1)
        self.depthwise = nn.Conv2d(32, 32, 3, padding=1, groups=32)
        self.norm = nn.GroupNorm(4, 32)
        self.counted = nn.Conv2d(32, 16, 1)
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        maps = self.counted(self.norm(self.depthwise(self.stem(x)).relu()))
        return self.head(torch.logcumsumexp(maps, 1).mean((2, 3)))


class Branching(nn.Module):
    """A network that torch.fx cannot trace."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) if x.sum() > 0 else x


def test_each_layer_has_what_becomes_of_it() -> None:
    torch.manual_seed(0)
    found = explain(Mixed().eval(), torch.randn(2, 3, 8, 8))
    layers = {layer.name: layer for layer in found.layers}
    assert list(layers)[:5] == ["stem", "depthwise", "norm", "counted", "head"]
    assert (layers["stem"].free_channels, layers["stem"].channels) == (32, 32)
    assert layers["depthwise"].channels is layers["norm"].channels is None
    assert layers["counted"].free_channels == layers["head"].free_channels == 0
    assert "they are the network's outputs" in layers["head"].reasons[0]
    assert [n for n, layer in layers.items() if layer.int8] == [
        "stem", "depthwise", "counted", "head",
    ]  # fmt: skip
    assert layers["norm"].executor == layers["logcumsumexp"].executor == "torch"
    assert layers["logcumsumexp"].kind == "operator"


def test_the_table_has_a_line_per_layer() -> None:
    text = str(explain(Mixed().eval(), torch.randn(2, 3, 8, 8)))
    lines = text.splitlines()
    assert lines[0].split()[:2] == ["layer", "kind"]
    assert [line.split()[0] for line in lines[1:6]] == [
        "stem", "depthwise", "norm", "counted", "head",
    ]  # fmt: skip
    assert "32 of 32" in lines[1]


def test_what_it_promises_happens() -> None:
    torch.manual_seed(1)
    model, example = Mixed().eval(), torch.randn(4, 3, 8, 8)
    promised = explain(model, example).layers
    static = quantize_static(model, example, fallback=True).network
    smaller = remove_channels(model, example, macs=0.7)
    for layer in promised:
        if layer.int8:
            assert isinstance(static.get_submodule(layer.name), QuantizedLayer)
        if layer.free_channels == 0:
            before, after = (m.get_submodule(layer.name).weight for m in (model, smaller))
            assert len(before) == len(after)
    assert smaller.stem.out_channels < 32


def test_what_holds_for_the_whole_network_is_a_note() -> None:
    found = explain(Branching(), torch.randn(2, 4))
    assert [(layer.int8, layer.executor) for layer in found.layers] == [(False, "torch")]
    assert [note.split(":")[0] for note in found.notes] == ["no channel may go", "no layer is INT8"]
    assert "torch.fx" in str(found)


def test_the_network_stays_as_it_was() -> None:
    model = Mixed().train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    explain(model, torch.randn(2, 3, 8, 8))
    assert model.training
    assert all(torch.equal(before[n], t) for n, t in model.state_dict().items())


@pytest.mark.parametrize(
    ("model", "error", "says"),
    [
        (nn.ReLU(), CompressionError, "expected layers with weights, found ReLU"),
        ("resnet18", UnsupportedTypeError, "expected a network"),
    ],
)
def test_what_cannot_be_explained_is_named(
    model: nn.Module, error: type[CompressionError], says: str
) -> None:
    with pytest.raises(error, match=says):
        explain(model, torch.randn(2, 4))


class Tagger(nn.Module):
    """Recurrent layers, which static INT8 has no codes for."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.LSTM(6, 7, batch_first=True), nn.GRU(7, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x)[0])[0]


def test_a_recurrent_layer_has_what_takes_it() -> None:
    network = Tagger()
    network.second.register_forward_hook(lambda *_: None)
    found = {layer.name: layer for layer in explain(network, torch.randn(2, 5, 6)).layers}
    takes = "quantize_dynamic and quantize_weights take it"
    assert [takes in found[name].reasons for name in ("first", "second")] == [True, False]
    assert not found["first"].int8


def test_an_example_is_a_tensor_and_a_note_one_line() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3))
    with pytest.raises(UnsupportedTypeError, match=r"expected one tensor of inputs .* found tuple"):
        explain(net, (torch.randn(2, 3, 8, 8),))  # type: ignore[arg-type]
    notes = explain(net, torch.randn(2, 5, 8, 8)).notes
    assert len(notes) == 2
    assert not any("\n" in note for note in notes)
