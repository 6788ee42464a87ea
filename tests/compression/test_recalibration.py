import pytest
import torch
from torch import Tensor, nn

from compression.errors import CompressionError
from compression.layers import left_out
from compression.pruning import prune_l1_unstructured
from compression.quantization import cast
from compression.recalibration import recalibrate_batch_norm
from tests.support.nets import images, mlp, residual


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


def normed(*norms: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), *norms)


def test_labels_are_dropped() -> None:
    labels = torch.zeros(32, dtype=torch.int64)
    found = recalibrate_batch_norm(residual(), [(images(), labels)])
    wanted = recalibrate_batch_norm(residual(), images())
    for name, tensor in wanted.state_dict().items():
        assert torch.equal(found.state_dict()[name], tensor), name
    with pytest.raises(CompressionError, match="recalibration: batch 1"):
        recalibrate_batch_norm(residual(), ["images"])


# dtype: (tolerance of statistics of about 1, reason)
NARROW = {
    torch.float16: (2e-3, "its half step, after averages in float32"),
    torch.bfloat16: (2e-2, "its half step, after averages in float32"),
    torch.float64: (1e-12, "averages in float64"),
}


@pytest.mark.parametrize("dtype", NARROW)
def test_statistics_are_right_in_every_dtype(dtype: torch.dtype) -> None:
    model = normed(nn.BatchNorm2d(4)).to(dtype)
    found = recalibrate_batch_norm(model, [images(seed=0), images(seed=1)])[1]
    assert {t.dtype for t in found.parameters()} == {found.running_var.dtype} == {dtype}
    with torch.no_grad():
        seen = [model[0](images(seed=seed).to(dtype)).double() for seed in (0, 1)]
    for wanted, statistic in (
        (sum(x.mean((0, 2, 3)) for x in seen) / 2, found.running_mean),
        (sum(x.var((0, 2, 3)) for x in seen) / 2, found.running_var),
    ):
        assert torch.allclose(statistic.double(), wanted, atol=NARROW[dtype][0], rtol=0)


def test_a_cast_network_is_recalibrated_where_it_widens_its_weights() -> None:
    model = normed(nn.BatchNorm2d(4))
    found = recalibrate_batch_norm(cast(model, torch.float16), images()).network[1]
    wanted = recalibrate_batch_norm(model, images())[1]
    assert found.running_mean.dtype == torch.float16
    assert torch.allclose(found.running_mean.float(), wanted.running_mean, atol=2e-3)
    assert torch.allclose(found.running_var.float(), wanted.running_var, atol=2e-3)


class Branches(nn.Module):
    """A norm that is called twice and one that is not called."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.spare = nn.BatchNorm2d(3), nn.BatchNorm2d(3, momentum=None)

    def forward(self, x: Tensor) -> Tensor:
        outputs: Tensor = self.norm(x) + self.norm(x + 2)
        return outputs


def test_a_shared_norm_takes_each_call_and_an_unused_one_stays() -> None:
    model, x = Branches(), images()
    with torch.no_grad():
        model.spare.running_mean.fill_(3)
        model.spare.num_batches_tracked.fill_(7)
    found = recalibrate_batch_norm(model, x)
    assert torch.allclose(found.norm.running_mean, x.mean((0, 2, 3)) + 1, atol=1e-5)
    assert list(left_out(found)) == ["spare"]
    for name, tensor in model.spare.state_dict().items():
        assert torch.equal(found.spare.state_dict()[name], tensor), name
    assert found.spare.momentum is None
    assert found.norm.momentum == 0.1


def test_a_synchronized_norm_is_a_batch_norm() -> None:
    model = nn.Sequential(nn.SyncBatchNorm(3), nn.BatchNorm2d(3, track_running_stats=False))
    found = recalibrate_batch_norm(model, images())[0]
    assert torch.allclose(found.running_mean, images().mean((0, 2, 3)), atol=1e-5)


def test_a_batch_that_the_network_cannot_take_is_named() -> None:
    flat = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(192))
    with pytest.raises(CompressionError, match=r"batch 2 of shape \(1, .*fails at 1: .*1 value"):
        recalibrate_batch_norm(flat, [images(), images(1)])
    with pytest.raises(CompressionError, match=r"batch 1 of shape .*fails at conv1"):
        recalibrate_batch_norm(residual(), images()[:, :2])
    large = nn.Sequential(nn.BatchNorm2d(3)).half()
    with pytest.raises(CompressionError, match=r"0\.running_var: found statistics beyond"):
        recalibrate_batch_norm(large, images() * 1000)


def test_one_image_has_a_variance_of_its_pixels() -> None:
    found = recalibrate_batch_norm(nn.Sequential(nn.BatchNorm2d(3)), images(1))[0]
    assert torch.allclose(found.running_var, images(1).var((0, 2, 3)), atol=1e-5)
