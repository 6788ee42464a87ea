import pytest
import torch
from torch import nn

from compression.errors import CompressionError
from compression.pruning import prune_l1_unstructured
from compression.recalibration import recalibrate_batch_norm
from tests.nets import images, mlp, residual


def test_one_batch_gives_its_own_mean_and_unbiased_variance() -> None:
    model = nn.Sequential(nn.BatchNorm2d(3))
    x = images() * 3 + 1
    norm: nn.BatchNorm2d = recalibrate_batch_norm(model, x)[0]  # type: ignore[index,assignment]
    assert norm.running_mean is not None
    assert norm.running_var is not None
    assert torch.allclose(norm.running_mean, x.mean(dim=(0, 2, 3)), atol=1e-5)
    assert torch.allclose(norm.running_var, x.var(dim=(0, 2, 3)), atol=1e-4)
    assert norm.momentum == 0.1


def test_batches_weigh_the_same() -> None:
    model = nn.Sequential(nn.BatchNorm2d(3))
    norm = recalibrate_batch_norm(model, [images(seed=0), images(seed=1) + 2])[0]  # type: ignore[index]
    both = torch.cat([images(seed=0), images(seed=1) + 2])
    assert torch.allclose(norm.running_mean, both.mean(dim=(0, 2, 3)), atol=1e-5)  # type: ignore[union-attr]


def test_a_pruned_network_comes_back_to_normed_activations_and_weights_stay() -> None:
    pruned = prune_l1_unstructured(residual(), amount=0.6)
    before = {name: t.clone() for name, t in pruned.state_dict().items()}
    again = recalibrate_batch_norm(pruned, images())
    assert all(torch.equal(t, before[n]) for n, t in pruned.state_dict().items())
    assert all(torch.equal(p, before[n]) for n, p in again.named_parameters()), (
        "only statistics may change"
    )
    seen: list[torch.Tensor] = []
    again.bn1.register_forward_hook(lambda *a: seen.append(a[2].clone()))  # type: ignore[union-attr,operator]
    with torch.no_grad():
        again(images())
    assert not again.training
    assert seen[0].mean(dim=(0, 2, 3)).abs().max() < 1e-4
    assert (seen[0].var(dim=(0, 2, 3)) - 1).abs().max() < 1e-2


def test_nothing_to_recalibrate_and_nothing_to_do_it_with_are_errors() -> None:
    with pytest.raises(CompressionError, match="no batch norm"):
        recalibrate_batch_norm(mlp(), images())
    with pytest.raises(CompressionError, match="empty"):
        recalibrate_batch_norm(residual(), [])
