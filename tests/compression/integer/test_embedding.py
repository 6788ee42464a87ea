"""Networks of words on codes, deployed and explained: which layer runs where."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import compression.integer.layers as lowering
from compression import explain
from compression.errors import CompressionError
from compression.integer import deploy, lacking
from compression.integer.native import EMBEDDING_KERNEL, native_embedding
from compression.integer.native.embedding import NativeEmbedding
from compression.integer.native.linear import NativeWeightLinear
from compression.quantization import WeightQuantizedEmbedding, quantize_weights
from compression.storage import load, save

needs_kernels = pytest.mark.skipif(lacking("native") is not None, reason=str(lacking("native")))


class Classifier(nn.Module):
    """The mean of a text's words, and a class."""

    def __init__(self, max_norm: float | None = None) -> None:
        super().__init__()
        self.words = nn.Embedding(50, 24, padding_idx=0, max_norm=max_norm)
        self.head = nn.Linear(24, 4)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.words(tokens).mean(1))


class Language(nn.Module):
    """A language model whose outputs share its words' weight: as a layer, or read at each call."""

    def __init__(self, *, as_layer: bool = True) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(50, 24), nn.Embedding(8, 24)
        self.body, self.head = nn.Linear(24, 24), nn.Linear(24, 50, bias=False)
        self.as_layer = as_layer
        if as_layer:
            self.head.weight = self.words.weight

    def forward(self, tokens: Tensor) -> Tensor:
        places = torch.arange(tokens.shape[1], dtype=torch.int32)
        x = self.body(self.words(tokens) + self.places(places)).relu()
        return self.head(x) if self.as_layer else F.linear(x, self.words.weight)


TOKENS = torch.tensor([[3, 49, 7, 0], [1, 1, 4, 2]])
NETWORKS: dict[str, tuple[Callable[[], nn.Module], int, int]] = {
    "classifier": (Classifier, 1, 1),
    "tied": (Language, 2, 2),
    "read": (lambda: Language(as_layer=False), 2, 1),
    "alone": (lambda: nn.Embedding(50, 24), 1, 0),
}
"""Networks, and how many embeddings and linear layers have kernels."""
FORMS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "8 bits": quantize_weights,
    "4 bits": lambda model: quantize_weights(model, num_bits=4, group_size=16),
}


def count(model: nn.Module, kind: type[nn.Module]) -> int:
    return sum(isinstance(module, kind) for module in model.modules())


@needs_kernels
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", NETWORKS)
@torch.no_grad()
def test_a_deployed_network_predicts_the_same(name: str, form: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    make, embeddings, linear = NETWORKS[name]
    quantized = FORMS[form](make().eval())
    deployed = deploy(quantized, TOKENS)
    assert count(deployed, NativeEmbedding) == embeddings
    assert count(deployed, NativeWeightLinear) == linear
    assert count(quantized, NativeEmbedding) == 0
    for tokens in (TOKENS, TOKENS.int(), torch.randint(50, (5, 8))):
        found, wanted = deployed(tokens), quantized(tokens)
        assert (found - wanted).norm() <= 1e-5 * wanted.norm()  # linear layers sum in another order
    for module in deployed.modules():
        if isinstance(module, NativeEmbedding):
            assert module.kernels_ran == {EMBEDDING_KERNEL: 1}
    save(quantized, tmp_path / "model")
    again = deploy(load(tmp_path / "model", make), TOKENS)
    assert torch.equal(again(TOKENS), deployed(TOKENS))


@needs_kernels
@torch.no_grad()
def test_words_that_the_network_lacks_raise_what_torch_raises() -> None:
    quantized = quantize_weights(Classifier().eval())
    deployed: Any = deploy(quantized, TOKENS)
    for wrong in (TOKENS - 1, TOKENS + 1):
        for network in (Classifier(), deployed):
            with pytest.raises(IndexError, match="index out of range in self"):
                network(wrong)
        with pytest.raises(CompressionError, match="cannot take the example: words: index"):
            deploy(quantized, wrong)
    torch.testing.assert_close(deployed(TOKENS), quantized(TOKENS))


@needs_kernels
@torch.no_grad()
def test_a_wrong_kernel_is_named_and_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(layer: nn.Module) -> nn.Module | None:
        kernel = native_embedding(layer)
        if kernel is not None:
            kernel.table[-50 * 24 :] ^= 1
        return kernel

    monkeypatch.setattr(lowering, "native_embedding", wrong)
    quantized = quantize_weights(Classifier().eval())
    with pytest.warns(RuntimeWarning, match=r"^words gives other numbers on its kernel"):
        deployed: Any = deploy(quantized, TOKENS)
    assert isinstance(deployed.words, WeightQuantizedEmbedding)
    assert isinstance(deployed.head, NativeWeightLinear)
    torch.testing.assert_close(deployed(TOKENS), quantized(TOKENS))


@torch.no_grad()
def test_what_has_no_kernel_stays_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    scaled = quantize_weights(Classifier(max_norm=1.0).eval())
    deployed: Any = deploy(scaled, TOKENS)
    assert type(deployed.words) is nn.Embedding
    torch.testing.assert_close(deployed(TOKENS), scaled(TOKENS))
    monkeypatch.setattr(lowering, "missing", lambda: "no compiler")
    for form in FORMS.values():
        quantized = form(Classifier().eval())
        deployed = deploy(quantized, TOKENS)
        assert isinstance(deployed.words, WeightQuantizedEmbedding)
        assert torch.equal(deployed(TOKENS), quantized(TOKENS))


@pytest.mark.parametrize("max_norm", [None, 1.0])
def test_an_embedding_is_explained(max_norm: float | None) -> None:
    found = {layer.name: layer for layer in explain(Classifier(max_norm), TOKENS).layers}
    assert (found["words"].kind, found["words"].executor) == ("Embedding", "torch")
    takes = "quantize_weights takes it"
    assert (takes in found["words"].reasons) is (max_norm is None)
    assert takes not in found["head"].reasons
