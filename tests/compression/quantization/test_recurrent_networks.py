"""Networks with recurrent layers on codes: what stays in float, their files, other techniques."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from compression.errors import CheckpointError, CompressionError
from compression.layers import left_out
from compression.pruning import prune_l1_unstructured
from compression.quantization import cast, quantize_dynamic
from compression.removal import remove_channels
from compression.storage import load, save
from compression.storage.structure import structure_of
from tests.support.storage_faults import forge, refuses


class Words(nn.Module):
    """An embedding, recurrent layers of two kinds, and an output."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(11, 6)
        self.body = nn.LSTM(6, 8, batch_first=True, bidirectional=True, proj_size=4)
        self.after = nn.GRU(8, 8, batch_first=True)
        self.head = nn.Linear(8, 5)

    def forward(self, tokens: Tensor) -> Tensor:
        self.body.flatten_parameters()
        x = self.after(self.body(self.words(tokens))[0])[0]
        logits: Tensor = self.head(x)
        return logits


TOKENS = torch.tensor([[1, 5, 10], [2, 0, 0]])


def hooked() -> nn.Module:
    model = Words()
    model.body.register_forward_hook(lambda *_: None)
    return model


def cell() -> nn.Module:
    model = Words()
    model.cell = nn.LSTMCell(6, 6)
    return model


LEFT: dict[str, tuple[Callable[[], nn.Module], tuple[str, ...], dict[str, str]]] = {
    "cell": (cell, (), {"cell.weight_ih": "found LSTMCell", "words.weight": "are looked up"}),
    "hooked": (hooked, (), {"body.weight_hr_l0": "it has forward hooks"}),
    "kept": (Words, ("body",), {"body.weight_ih_l0": "to stay", "body.weight_hh_l0": "to stay"}),
    "kept by a matrix": (Words, ("after.weight_hh_l0",), {"after.weight_ih_l0": "to stay"}),
    "kept apart": (Words, ("body", "after"), {"after.weight_ih_l0": "to stay"}),
}


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
@pytest.mark.parametrize("name", LEFT)
@torch.no_grad()
def test_what_stays_in_float_is_listed_and_loads(name: str, tmp_path: Path) -> None:
    make, keep, reasons = LEFT[name]
    quantized = quantize_dynamic(make(), keep=keep)
    missed = left_out(quantized)
    for tensor, reason in reasons.items():
        assert reason in missed[tensor]
    save(quantized, tmp_path / "model")
    again = load(tmp_path / "model", make)
    assert torch.equal(again(TOKENS), quantized(TOKENS))
    for layer in ("body", "after"):
        assert type(again.get_submodule(layer)) is type(quantized.get_submodule(layer))


def later(value: Any) -> Callable[[Any, Any], None]:
    """Return a change of the layers that a file says are on codes."""
    return lambda _, about: about["structure"].update(later=value)


FORGED = {
    "none": later([]), "one": later(["body"]), "unknown": later(["body", "afters"]),
    "another kind": later(["body", "after", "words", "head"]), "a number": later(3),
    "lists": later([["body"], ["after"]]), "null": later(None),
}  # fmt: skip


@pytest.mark.parametrize("name", FORGED)
def test_a_file_that_names_other_layers_is_refused(name: str, tmp_path: Path) -> None:
    quantized, path = quantize_dynamic(Words()), tmp_path / "model"
    structure = structure_of(quantized)
    assert structure is not None
    assert structure["later"] == ["body", "after"]
    save(quantized, path)
    changed = forge(FORGED[name], path.read_bytes())
    if name in ("another kind", "null"):
        # Embeddings have no codes of this kind, and null names all.
        path.write_bytes(changed)
        assert torch.equal(load(path, Words)(TOKENS), quantized(TOKENS))
    else:
        refuses(path, changed, factory=Words)


@pytest.mark.parametrize("name", ["body.matrices.weight_hr_l0.codes", "after.layer.bias_hh_l0"])
def test_a_file_without_a_tensor_is_refused(name: str, tmp_path: Path) -> None:
    save(quantize_dynamic(Words()), tmp_path / "model")
    with pytest.raises(CheckpointError, match="of another architecture"):
        load(tmp_path / "model", lambda: nn.Sequential(Words()))
    data = (tmp_path / "model").read_bytes()

    def drop(entries: Any, about: Any) -> None:
        about["tensors"].pop(name, None)
        for group in about.get("joined", {}).values():
            group["shapes"].pop(name, None)

    refuses(tmp_path / "model", forge(drop, data), factory=Words)


@torch.no_grad()
def test_pruned_weights_stay_zero_and_removal_comes_before(tmp_path: Path) -> None:
    pruned = prune_l1_unstructured(Words(), amount=0.6)
    quantized: Any = quantize_dynamic(pruned)
    zeros = pruned.get_parameter("body.weight_hh_l0") == 0
    assert (quantized.body.matrices["weight_hh_l0"].codes[zeros] == 0).all()
    assert zeros.float().mean() >= 0.5
    again = prune_l1_unstructured(nn.ModuleList([quantized, nn.Linear(4, 4)]), amount=0.5)
    assert "0.body.matrices.weight_ih_l0.codes" in left_out(again)

    class Mapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.maps, self.more = nn.Conv1d(3, 8, 1), nn.Conv1d(8, 6, 1)
            self.body = nn.GRU(6, 4, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            return self.body(self.more(self.maps(x).relu()).transpose(1, 2))[0]

    x = torch.randn(2, 3, 5)
    smaller = remove_channels(Mapped().eval(), x, parameters=0.9, multiple_of=1)
    both = quantize_dynamic(smaller)
    save(both, tmp_path / "model")
    assert torch.equal(load(tmp_path / "model", Mapped)(x), both(x))
    with pytest.raises(CompressionError, match="expected a network in float"):
        remove_channels(both, x, parameters=0.9)


@torch.no_grad()
def test_a_cast_layer_predicts_in_float32_outside() -> None:
    quantized, x = quantize_dynamic(Words()), TOKENS
    for dtype in (torch.float16, torch.bfloat16):
        half = cast(quantized, dtype)
        assert half.network.get_submodule("body.matrices.weight_ih_l0").scale.dtype == torch.float32
        assert half(x).dtype == torch.float32
        assert (half(x) - quantized(x)).norm() <= 0.05 * quantized(x).norm()
