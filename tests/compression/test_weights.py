"""Which weights techniques reach, and what they say of the others."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

from compression.accounting import count_nonzeros, count_parameters, dense_bytes
from compression.clustering import share_weights, shared_values
from compression.errors import CompressionError, UnsupportedTypeError
from compression.layers import copy_model, filters, left_out, unfilters
from compression.pruning import (
    fine_tune,
    keep_zeros,
    prune_l1_global,
    prune_l1_unstructured,
    prune_ln_structured,
    prune_n_of_m,
    prune_random_unstructured,
    sparsity,
)
from compression.quantization import cast, quantize_dynamic, quantize_weights
from compression.recalibration import recalibrate_batch_norm
from compression.weights import weights
from tests.support.nets import RECIPE, images, mlp, residual, split

Technique = Callable[[Any], Any]
UNSTRUCTURED = [prune_l1_unstructured, prune_l1_global, prune_random_unstructured]
TECHNIQUES: dict[str, Technique] = {
    **{f.__name__: partial(f, amount=0.5) for f in (*UNSTRUCTURED, prune_ln_structured)},
    "prune_n_of_m": prune_n_of_m,
    "keep_zeros": keep_zeros,
    "fine_tune": lambda m: fine_tune(m, split(), RECIPE),
    "sparsity": sparsity,
    "share_weights": lambda m: share_weights(m, num_clusters=4),
    "quantize_dynamic": quantize_dynamic,
    "quantize_weights": quantize_weights,
    "cast": lambda m: cast(m, torch.bfloat16),
    "recalibrate_batch_norm": lambda m: recalibrate_batch_norm(m, images()),
}


class Language(nn.Module):
    """Recurrent layers between an embedding and the output layer that shares its weight."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(30, 16)
        self.lstm = nn.LSTM(16, 16, 2)
        self.out = nn.Linear(16, 30)
        self.out.weight = self.embedding.weight

    def forward(self, tokens: Tensor) -> Tensor:
        logits: Tensor = self.out(self.lstm(self.embedding(tokens))[0])
        return logits


class Own(nn.Module):
    """A matrix of the user's own beside a layer and an embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.layer = nn.Embedding(9, 4), nn.Linear(4, 4)
        self.matrix = nn.Parameter(torch.randn(4, 4))


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "encoder": lambda: nn.TransformerEncoderLayer(16, 4, 32),
    "attention of other widths": lambda: nn.MultiheadAttention(16, 4, kdim=8, vdim=6),
    "language": Language,
    "projected": lambda: nn.LSTM(8, 16, proj_size=4, bidirectional=True),
    "cell": lambda: nn.GRUCell(8, 16),
    "bilinear": lambda: nn.Bilinear(8, 6, 4),
    "transposed": lambda: nn.Sequential(
        nn.ConvTranspose1d(4, 6, 3), nn.ConvTranspose3d(4, 6, 3, groups=2)
    ),
    "half": lambda: nn.Linear(16, 16).half(),
    "bfloat16": lambda: nn.Linear(16, 16).bfloat16(),
    "float64": lambda: nn.Linear(16, 16).double(),
}


@pytest.mark.parametrize("prune_", UNSTRUCTURED)
@pytest.mark.parametrize("name", NETWORKS)
def test_the_sparsity_that_was_asked_for_is_found(name: str, prune_) -> None:
    torch.manual_seed(0)
    model = NETWORKS[name]()
    matrices = [p for p in model.parameters() if p.ndim > 1]
    for matrix in matrices:  # of one size, so that none is emptied by the others
        nn.init.normal_(matrix)
    before = sparsity(model)  # of bfloat16 a few are drawn as 0
    pruned = prune_(model, amount=0.7)
    # each matrix is off by half a weight at most
    total = sum(p.numel() for p in matrices)
    assert left_out(pruned) == {}
    assert sparsity(pruned) == pytest.approx(0.7, abs=len(matrices) / 2 / total)
    assert sparsity(model) == before


def test_what_is_left_out_is_listed_and_counts() -> None:
    assert set(left_out(quantize_weights(Own()))) == {"matrix"}
    for name in ("prune_l1_unstructured", "prune_l1_global", "share_weights", "quantize_dynamic"):
        out = TECHNIQUES[name](Own())
        assert set(left_out(out)) == {"embedding.weight", "matrix"}
        assert "looked up" in left_out(out)["embedding.weight"]
    assert sparsity(prune_l1_unstructured(Own(), amount=0.5)) == pytest.approx(8 / (36 + 16 + 16))
    with pytest.raises(CompressionError, match=r"no compressible layer.*found Embedding"):
        prune_l1_unstructured(nn.Embedding(9, 4), amount=0.5)


def test_the_list_is_that_of_the_latest_technique() -> None:
    pruned = prune_l1_unstructured(Own(), amount=0.5)
    assert set(left_out(quantize_weights(pruned))) == {"matrix"}
    pruned = prune_n_of_m(nn.Sequential(nn.Linear(6, 4), nn.Linear(4, 4)))
    assert left_out(pruned) == {"0.weight": "its 6 input channels are no multiple of 4"}
    assert left_out(prune_l1_unstructured(pruned, amount=0.5)) == {}


def test_integer_codes_are_listed_and_counted() -> None:
    quantized = quantize_dynamic(residual())
    pruned = prune_l1_unstructured(quantized, amount=0.5)
    assert left_out(pruned) == {"fc.codes": "DynamicQuantizedLinear holds integer codes"}
    assert left_out(quantize_weights(quantized)) == left_out(pruned)
    codes = quantized.get_buffer("fc.codes")
    sizes = [3 * 8 * 9, 8 * 8 * 9]
    zeros = sum(size // 2 for size in sizes) + int((codes == 0).sum())
    assert sparsity(pruned) == pytest.approx(zeros / (sum(sizes) + codes.numel()))


def test_a_tied_weight_is_reached_once_and_stays_tied() -> None:
    torch.manual_seed(0)
    model = Language()
    assert len(weights(model)) == 5
    pruned = prune_l1_global(model, amount=0.5)
    assert pruned.embedding.weight is pruned.out.weight
    shared = share_weights(model, num_clusters=4)
    assert shared.embedding.weight is shared.out.weight
    assert max(shared_values(shared).values()) == 4
    twins = nn.ModuleDict({name: nn.Linear(10, 10, bias=False) for name in "abc"})
    twins["b"].weight = twins["a"].weight
    with torch.no_grad():
        twins["a"].weight.mul_(0.01)
    assert count_nonzeros(prune_l1_global(twins, amount=0.5)) == 100
    assert sparsity(prune_l1_global(twins, amount=0.5)) == 0.5


def test_two_parameters_on_one_memory_are_tied_in_the_copy() -> None:
    model = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False))
    model[1].weight = nn.Parameter(model[0].weight.data)
    copy = copy_model(model)
    assert copy[0].weight is copy[1].weight
    assert count_parameters(model) == count_parameters(copy) == 16
    assert dense_bytes(model) == 64


def computed(kind: str) -> nn.Module:
    model: Any = residual()
    match kind:
        case "parametrization":
            parametrizations.weight_norm(model.conv1)
        case "spectral":
            parametrizations.spectral_norm(model.conv1)
        case "old weight norm":
            nn.utils.weight_norm(model.conv1)
        case "old spectral norm":
            nn.utils.spectral_norm(model.conv1)
        case "mask":
            prune.l1_unstructured(model.conv1, "weight", 0.3)
    network: nn.Module = model
    return network


@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated")
@pytest.mark.parametrize("technique", TECHNIQUES)
@pytest.mark.parametrize(
    ("kind", "remedy"),
    [
        ("parametrization", "remove_parametrizations"),
        ("spectral", "remove_parametrizations"),
        ("old weight norm", "remove_weight_norm"),
        ("old spectral norm", "remove_spectral_norm"),
        ("mask", r"prune\.remove"),
    ],
)
def test_a_weight_that_is_computed_is_refused(kind: str, remedy: str, technique: str) -> None:
    model = computed(kind)
    with pytest.raises(UnsupportedTypeError, match=remedy):
        TECHNIQUES[technique](model)


@pytest.mark.parametrize("technique", TECHNIQUES)
@pytest.mark.parametrize("wrong", ["model", None, 3, torch.ones(2)], ids=str)
def test_what_is_no_network_is_refused(technique: str, wrong: object) -> None:
    with pytest.raises(UnsupportedTypeError, match=r"expected a network \(nn\.Module\), found"):
        TECHNIQUES[technique](wrong)


@pytest.mark.parametrize("technique", TECHNIQUES)
def test_a_lazy_layer_is_refused_by_name(technique: str) -> None:
    with pytest.raises(UnsupportedTypeError, match=r"0\.weight: .* lazy layer"):
        TECHNIQUES[technique](nn.Sequential(nn.LazyConv2d(4, 3)))


@pytest.mark.parametrize(
    ("function", "options", "message"),
    [
        (prune_l1_unstructured, {"amount": "0.5"}, "amount is the fraction"),
        (prune_l1_global, {"amount": None}, "amount is the fraction"),
        (prune_random_unstructured, {"amount": 0.5, "seed": "1"}, "seed must be a whole number"),
        (prune_ln_structured, {"amount": 0.5, "n": "2"}, "n must be above 0"),
        (prune_ln_structured, {"amount": 0.5, "dim": "0"}, "dim must lie in"),
        (prune_ln_structured, {"amount": 0.5, "outputs": "fc"}, "dotted names"),
        (prune_ln_structured, {"amount": 0.5, "outputs": ["fx"]}, "no layer 'fx'"),
        (prune_n_of_m, {"n": "2"}, "whole numbers"),
        (share_weights, {"num_clusters": "4"}, "num_clusters must lie in"),
        (share_weights, {"num_clusters": 4, "seed": None}, "seed must be a whole number"),
        (quantize_weights, {"num_bits": "8"}, "num_bits must be"),
        (quantize_weights, {"group_size": "4"}, "group_size must be"),
        (quantize_weights, {"keep": "fc"}, "dotted names"),
        (quantize_dynamic, {"keep": ["conv9"]}, "no layer with weights at 'conv9'"),
        (cast, {"dtype": "float16"}, "dtype must be"),
    ],
)
def test_an_option_of_another_type_is_refused(function, options, message: str) -> None:
    with pytest.raises(CompressionError, match=message):
        function(residual(), **options)


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
def test_layers_without_weights_are_passed_over() -> None:
    model = nn.Sequential(nn.Linear(4, 0), nn.Linear(0, 4), nn.Linear(4, 4))
    assert sparsity(prune_l1_unstructured(model, amount=0.5)) == 0.5
    assert share_weights(model, num_clusters=2)[2].weight.unique().numel() == 2
    with pytest.raises(CompressionError, match="no compressible layer"):
        prune_l1_unstructured(model[:2], amount=0.5)


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("kind", [nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d])
def test_filters_of_a_transposed_convolution_make_its_output_channels(kind, groups: int) -> None:
    torch.manual_seed(0)
    layer = kind(4, 6, 2, groups=groups, bias=False)
    rows = filters(layer.weight.detach(), layer)
    assert rows.shape[:2] == (6, 4 // groups)
    assert torch.equal(unfilters(rows, layer), layer.weight)
    kept = rows.clone()
    kept[2] = 0
    with torch.no_grad():
        layer.weight.copy_(unfilters(kept, layer))
        outputs = layer(torch.randn(1, 4, *[3] * (layer.weight.ndim - 2)))
    assert (outputs.flatten(2).abs().sum(2) == 0).flatten().tolist() == [i == 2 for i in range(6)]


def test_a_network_is_compressed_beside_a_multilayer_perceptron_alike() -> None:
    """A network of linear layers only has nothing left out, whatever is asked."""
    for technique in (quantize_weights, quantize_dynamic, prune_n_of_m):
        assert left_out(technique(mlp())) == {}
