import pytest
import torch
from torch import nn
from torchvision.models import resnet18

from benchmarks.networks import five_layer_cnn, resnet18_10
from compression.accounting import count_macs, count_nonzeros, count_parameters, dense_bytes
from compression.pruning import prune_l1_unstructured
from compression.quantization import quantize_dynamic
from tests.nets import mlp, residual

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
