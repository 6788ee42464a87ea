"""Networks with recurrent layers on codes, deployed, explained, and refused by what has no kernel."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import compression.integer.layers as lowering
from compression.errors import CompressionError, UnsupportedTypeError
from compression.integer import deploy, lacking
from compression.integer.native import (
    RECURRENT_KERNEL,
    RECURRENT_WEIGHTS_KERNEL,
    native_recurrent,
)
from compression.integer.native.embedding import NativeEmbedding
from compression.integer.native.recurrent import NativeRecurrent
from compression.quantization import (
    DynamicQuantizedRecurrent,
    quantize_dynamic,
    quantize_weights,
)
from compression.storage import load, save
from tests.support.sequence_nets import Spoken, Written

needs_kernels = pytest.mark.skipif(lacking("native") is not None, reason=str(lacking("native")))


class Tagger(nn.Module):
    """Two kinds of recurrent layers between linear ones; the first may be given packed."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.leave = nn.Linear(6, 10), nn.Linear(9, 4)
        self.lstm = nn.LSTM(10, 7, 2, batch_first=True, bidirectional=True, proj_size=5)
        self.gru = nn.GRU(10, 9, batch_first=True)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        self.lstm.flatten_parameters()
        x = self.enter(x)
        if lengths is None:
            x, (hidden, _) = self.lstm(x)
        else:
            packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
            packed, (hidden, _) = self.lstm(packed)
            x = pad_packed_sequence(packed, batch_first=True)[0]
        x, _ = self.gru(x, hx=torch.cat([hidden.mean(0), hidden[0, :, :4]], 1)[None])
        logits: Tensor = self.leave(x)
        return logits


def quantized() -> nn.Module:
    torch.manual_seed(0)
    return quantize_dynamic(Tagger())


LENGTHS = torch.tensor([2, 5, 3])


@needs_kernels
@pytest.mark.parametrize("lengths", [(), (LENGTHS,)], ids=["batch", "packed"])
@torch.no_grad()
def test_a_deployed_network_predicts_the_same_bits(lengths: tuple[Tensor, ...]) -> None:
    network, x = quantized(), torch.randn(3, 5, 6)
    deployed: Any = deploy(network, (x, *lengths))
    assert isinstance(deployed.lstm, NativeRecurrent)
    assert isinstance(deployed.gru, NativeRecurrent)
    for given in (x, torch.randn(3, 5, 6)):
        assert torch.equal(deployed(given, *lengths), network(given, *lengths))
    assert deployed.lstm.kernels_ran == {RECURRENT_KERNEL: 2}
    assert isinstance(network.get_submodule("lstm"), DynamicQuantizedRecurrent)


@needs_kernels
@torch.no_grad()
def test_a_layer_alone_is_deployed() -> None:
    network, x = quantize_dynamic(nn.GRU(4, 5)), torch.randn(3, 2, 4)
    deployed = deploy(network, x, executor="native")
    assert isinstance(deployed, NativeRecurrent)
    assert torch.equal(deployed(x)[0], network(x)[0])


@needs_kernels
@torch.no_grad()
def test_a_wrong_kernel_is_named_and_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(layer: nn.Module) -> nn.Module | None:
        kernel: Any = native_recurrent(layer)
        if kernel is not None and kernel.mode == "GRU":
            product = kernel.products["weight_hh_l0"]
            product.bias = product.bias + 0.01
        return kernel

    monkeypatch.setattr(lowering, "native_recurrent", wrong)
    network, x = quantized(), torch.randn(3, 5, 6)
    with pytest.warns(RuntimeWarning, match=r"^gru gives other numbers on its kernel"):
        deployed: Any = deploy(network, x)
    assert isinstance(deployed.lstm, NativeRecurrent)
    assert isinstance(deployed.gru, DynamicQuantizedRecurrent)
    assert torch.equal(deployed(x), network(x))


@torch.no_grad()
def test_what_has_no_kernel_runs_as_it_was_quantized(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn(3, 5, 6)
    double = quantize_dynamic(Tagger().double())
    deployed: Any = deploy(double, x.double())
    assert isinstance(deployed.lstm, DynamicQuantizedRecurrent)
    assert torch.equal(deployed(x.double()), double(x.double()))
    monkeypatch.setattr(lowering, "missing", lambda: "no compiler")
    network = quantized()
    deployed = deploy(network, x)
    assert isinstance(deployed.lstm, DynamicQuantizedRecurrent)
    assert torch.equal(deployed(x), network(x))


@needs_kernels
@torch.no_grad()
def test_inputs_of_another_dtype_are_told() -> None:
    class Widening(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gru = nn.GRU(6, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.gru(x.half())[0]

    network, x = quantize_dynamic(Widening()), torch.randn(3, 5, 6)
    with pytest.warns(RuntimeWarning, match=r"gru is called with torch\.float16"):
        deployed = deploy(network, x)
    assert torch.equal(deployed(x), network(x))


def test_what_other_executors_say(tmp_path: Path) -> None:
    network, x = quantized(), torch.randn(3, 5, 6)
    with pytest.raises(UnsupportedTypeError, match="executor onednn runs statically quantized"):
        deploy(network, x, executor="onednn")
    with pytest.raises(CompressionError, match="cannot take the example: enter"):
        deploy(network, torch.randn(3, 5, 7))
    with pytest.raises(CompressionError, match=r"cannot take the example: .*LSTM of 10 inputs"):
        deploy(quantize_dynamic(nn.LSTM(10, 3)), torch.randn(3, 5, 7))
    if lacking("native") is None:
        with pytest.raises(CompressionError, match="of a compressed network"):
            save(deploy(network, x), tmp_path / "model")


TOKENS, SOUND = (
    torch.tensor([[3, 29, 7, 0], [1, 1, 4, 2]]),
    torch.linspace(-2, 2, 480).view(2, 8, 30).sin(),
)
SEQUENCES: dict[str, tuple[Callable[[], nn.Module], Tensor]] = {
    "written": (Written, TOKENS), "spoken": (Spoken, SOUND),
}  # fmt: skip
FORMS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "8 bits": quantize_weights,
    "4 bits": lambda m: quantize_weights(m, num_bits=4, group_size=16),
    "dynamic": quantize_dynamic,
}


@needs_kernels
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", SEQUENCES)
@torch.no_grad()
def test_networks_of_sequences_run_on_kernels_and_come_back(
    name: str, form: str, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    make, x = SEQUENCES[name]
    network = FORMS[form](make().eval())
    save(network, tmp_path / "model")
    deployed: Any = deploy(network, x)
    assert isinstance(deployed.body, NativeRecurrent)
    torch.testing.assert_close(deployed(x), network(x), rtol=1e-5, atol=1e-6)
    kernel = RECURRENT_KERNEL if form == "dynamic" else RECURRENT_WEIGHTS_KERNEL
    assert deployed.body.kernels_ran == {kernel: deployed.body.num_layers}
    assert torch.equal(deploy(load(tmp_path / "model", make), x)(x), deployed(x))
    if name == "written" and form != "dynamic":
        assert isinstance(deployed.words, NativeEmbedding)


@torch.no_grad()
def test_weights_without_a_kernel_are_real_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    network = quantize_weights(Spoken().eval(), num_bits=4)
    many: Any = deploy(network, SOUND[:1].expand(lowering.MOST_ROWS + 1, 8, 30))
    assert type(many.body) is nn.GRU
    monkeypatch.setattr(lowering, "missing", lambda: "no compiler")
    deployed: Any = deploy(network, SOUND)
    assert type(deployed.body) is nn.GRU
    assert torch.equal(deployed(SOUND), network(SOUND))


@needs_kernels
@torch.no_grad()
def test_a_wrong_kernel_of_weights_is_named_and_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(layer: nn.Module) -> nn.Module | None:
        kernel: Any = native_recurrent(layer)
        if kernel is not None:
            product = kernel.products["weight_hh_l0"]
            product.bias = product.bias + 1e-3
        return kernel

    monkeypatch.setattr(lowering, "native_recurrent", wrong)
    with pytest.warns(RuntimeWarning, match=r"^body gives other numbers on its kernel"):
        deployed: Any = deploy(quantize_weights(Spoken().eval()), SOUND)
    assert type(deployed.body) is nn.GRU
