import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence
from torchvision.models import resnet18

from benchmarks.baseline.networks import five_layer_cnn, resnet18_10
from compression.accounting import count_macs, count_nonzeros, count_parameters, dense_bytes
from compression.errors import CompressionError, UnsupportedTypeError
from compression.modes import ExecutorModel
from compression.pruning import prune_l1_unstructured
from compression.quantization import cast, quantize_dynamic, quantize_static, quantize_weights
from tests.support.nets import mlp, residual

MIB = 2**20


def test_resnet18_is_the_published_network() -> None:
    model = resnet18_10()
    assert count_parameters(model) == 11_181_642
    assert count_parameters(model) * 4 / MIB == pytest.approx(42.654, abs=0.001)
    counters = 20 * 8  # num_batches_tracked of 20 batch norms, int64
    assert (dense_bytes(model) - counters) / MIB == pytest.approx(42.691, abs=0.001)
    assert (dense_bytes(model) - counters) / 1e6 == pytest.approx(44.765, abs=0.001)


def test_macs_of_resnet18_at_224_are_the_published_ones() -> None:
    macs = count_macs(resnet18(), torch.zeros(1, 3, 224, 224))
    assert macs == 1_814_073_344  # without batch norm, pooling and additions
    assert macs == pytest.approx(1.82e9, rel=0.005)


def test_the_student_is_no_larger_than_the_papers() -> None:
    assert dense_bytes(five_layer_cnn()) <= 5.19 * MIB


def test_a_grouped_convolution_has_a_groups_share_of_macs() -> None:
    x = torch.zeros(1, 8, 4, 4)
    whole = count_macs(nn.Conv2d(8, 8, 3, padding=1), x)
    assert whole == 8 * 8 * 9 * 16
    assert count_macs(nn.Conv2d(8, 8, 3, padding=1, groups=4), x) == whole // 4


def test_counting_macs_changes_nothing() -> None:
    model = residual().train()
    before = {name: t.clone() for name, t in model.state_dict().items()}
    count_macs(model, torch.randn(2, 3, 8, 8))
    assert model.training
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())


def test_integer_products_are_counted() -> None:
    x = torch.randn(1, 3, 8, 8)
    assert count_macs(quantize_dynamic(mlp()), x) == count_macs(mlp(), x) == 192 * 16 + 16 * 4


def test_nonzeros_and_tied_weights() -> None:
    model = mlp()
    pruned = prune_l1_unstructured(model, amount=0.5)
    removed = round(0.5 * 192 * 16) + round(0.5 * 16 * 4)
    assert count_nonzeros(pruned) == count_nonzeros(model) - removed
    tied = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    tied[1].weight = tied[0].weight
    assert count_parameters(tied) == 16 + 8
    assert dense_bytes(tied) == 4 * (16 + 8)


def relation(**options) -> nn.Module:
    return nn.TransformerEncoderLayer(32, 4, 64, **options)


ROWS, WIDTH, INNER = 10, 32, 64
ENCODER = ROWS * (4 * WIDTH * WIDTH + 2 * WIDTH * INNER) + 2 * ROWS * ROWS * WIDTH
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
MACS: dict[str, tuple[nn.Module, tuple[object, ...], int]] = {
    "encoder": (relation(batch_first=True), (torch.zeros(1, ROWS, WIDTH),), ENCODER),
    "encoder, steps first": (relation(), (torch.zeros(ROWS, 1, WIDTH),), ENCODER),
    "attention": (
        nn.MultiheadAttention(WIDTH, 4, kdim=8, vdim=6),
        (torch.zeros(3, 2, WIDTH), torch.zeros(5, 2, 8), torch.zeros(5, 2, 6)),
        2 * (3 * 2 * WIDTH * WIDTH + 5 * WIDTH * (8 + 6) + 2 * 3 * 5 * WIDTH),
    ),
    **{
        f"{name}, {'two ways' if both else 'one way'}": (
            getattr(nn, name)(8, 16, 2, bidirectional=both),
            (torch.zeros(5, 3, 8),),
            15 * gates * 16 * (1 + both) * (8 + 16 + 16 * (1 + both) + 16),
        )
        for name, gates in GATES.items()
        for both in (False, True)
    },
    "LSTM, batch first": (nn.LSTM(8, 16, batch_first=True), (torch.zeros(3, 5, 8),), 15 * 64 * 24),
    "LSTM, projected": (
        nn.LSTM(8, 16, proj_size=4),
        (torch.zeros(5, 3, 8),),
        15 * (64 * (8 + 4) + 16 * 4),
    ),
    "LSTM, packed": (
        nn.LSTM(8, 16),
        (pack_padded_sequence(torch.zeros(5, 2, 8), torch.tensor([5, 3])),),
        8 * 64 * 24,
    ),
    "cell": (nn.GRUCell(8, 16), (torch.zeros(2, 8),), 2 * 48 * 24),
    "bilinear": (nn.Bilinear(8, 6, 4), (torch.zeros(5, 8), torch.zeros(5, 6)), 5 * 4 * 8 * 6),
    "a vector": (nn.Linear(8, 4, bias=False), (torch.zeros(8),), 32),
    "transposed": (nn.ConvTranspose1d(4, 6, 3, groups=2), (torch.zeros(2, 4, 5),), 2 * 5 * 4 * 9),
    "tokens": (nn.Embedding(9, 4), (torch.zeros(3, dtype=torch.int64),), 0),
}


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported")
@pytest.mark.parametrize("name", MACS)
@pytest.mark.parametrize("training", [False, True])
def test_macs_of_layers_that_fuse_their_products(name: str, training: bool) -> None:
    model, inputs, wanted = MACS[name]
    assert count_macs(model.train(training), *inputs) == wanted
    assert model.training == training
    assert torch.backends.mha.get_fastpath_enabled()


class Products(nn.Module):
    """Any product of its inputs, by its name."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, a: Tensor, b: Tensor) -> dict[str, Tensor]:
        self.calls += 1
        match self.kind:
            case "einsum":
                return {"product": torch.einsum("bij,bjk->bik", a, b)}
            case "bmm":
                return {"product": torch.bmm(a, b)}
            case "baddbmm":
                return {"product": torch.baddbmm(torch.zeros(()), a, b)}
            case "addbmm":
                return {"product": torch.addbmm(torch.zeros(()), a, b)}
            case "matrix times vector":
                return {"product": a[0] @ b[0, :, 0]}
            case "vector times vector":
                return {"product": torch.dot(a[0, 0], b[0, :, 0])}
            case "distances":
                return {"product": torch.cdist(a[0], b[0].T)}
            case "attention":
                return {"product": F.scaled_dot_product_attention(a, a, a)}
        return {"product": torch.linalg.inv(a @ b)}


@pytest.mark.parametrize(
    ("kind", "wanted"),
    [
        *((kind, 2 * 3 * 4 * 3) for kind in ("einsum", "bmm", "baddbmm", "addbmm")),
        ("matrix times vector", 12),
        ("vector times vector", 4),
        ("distances", 36),
        ("attention", 2 * 2 * 3 * 3 * 4),
    ],
)
def test_products_are_counted_and_buffers_stay(kind: str, wanted: int) -> None:
    model, a, b = Products(kind), torch.zeros(2, 3, 4), torch.zeros(2, 4, 3)
    assert count_macs(model, a, b=b) == wanted
    assert model.calls == 0


class Lowered(ExecutorModel):
    """What an executor made of a network."""

    def forward(self, x: Tensor) -> Tensor:
        return x


def test_what_cannot_be_told_is_refused_by_name() -> None:
    with pytest.raises(UnsupportedTypeError, match="linalg_inv"):
        count_macs(Products("inverse"), torch.randn(2, 3, 3), torch.randn(2, 3, 3))
    for count in (count_parameters, count_nonzeros, lambda m: count_macs(m, torch.zeros(1))):
        with pytest.raises(UnsupportedTypeError, match="1: Lowered holds its weights outside"):
            count(nn.Sequential(nn.Linear(1, 1), Lowered()))
    with pytest.raises(CompressionError, match=r"cannot take the example: 1: "):
        count_macs(mlp(), torch.zeros(1, 3, 9, 9))
    with pytest.raises(UnsupportedTypeError, match="expected a network"):
        count_parameters("mlp")
    for count in (count_parameters, count_nonzeros):
        with pytest.raises(UnsupportedTypeError, match="lazy"):
            count(nn.LazyLinear(3))
    with pytest.raises(UnsupportedTypeError, match="meta"):
        count_nonzeros(nn.Linear(2, 2, device="meta"))


@pytest.mark.parametrize(
    "technique", [quantize_dynamic, quantize_weights, lambda m: cast(m, torch.bfloat16)]
)
def test_a_compressed_network_multiplies_as_often(technique) -> None:
    x = torch.randn(2, 3, 8, 8)
    assert count_macs(technique(residual()), x) == count_macs(residual(), x)
    assert count_parameters(technique(residual())) == count_parameters(residual())


def test_tensors_are_counted_by_what_they_hold() -> None:
    model = nn.Linear(6, 4)
    model.weight = nn.Parameter(torch.randn(6, 4).t())  # not contiguous
    model.register_buffer("wide", torch.ones(1, 3).expand(5, 3))
    model.register_buffer("part", torch.ones(100)[10:20])
    model.register_buffer("empty", torch.ones(0, 3))
    model.register_buffer("again", model.part)
    assert count_parameters(model) == count_nonzeros(model) == 28
    assert dense_bytes(model) == 4 * (28 + 15 + 10)
    assert dense_bytes(nn.Linear(6, 4, device="meta")) == 4 * 28
    tied = quantize_weights(nn.ModuleList([model, model, nn.Linear(6, 4)]))
    assert count_parameters(tied) == 56


def test_an_integer_network_counts_each_product_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its reference multiplies large sums in two halves, which is arithmetic of its own."""
    net = nn.Sequential(nn.Conv2d(64, 64, 3), nn.ReLU(), nn.Conv2d(64, 8, 3)).eval()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.fill_(0.5)
    x = torch.ones(2, 64, 9, 9)
    quantized = quantize_static(net, x)
    assert count_macs(quantized, x[:1]) == count_macs(net, x[:1])
    monkeypatch.setattr("compression.quantization.layer._get_current_dispatch_mode", lambda: None)
    assert count_macs(quantized, x[:1]) > count_macs(net, x[:1]), "else the case tests nothing"
