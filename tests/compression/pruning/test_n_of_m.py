import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from compression.errors import CompressionError
from compression.layers import compressible_layers
from compression.pruning import fine_tune, is_n_of_m, n_of_m_mask, prune_n_of_m, sparsity
from tests.support.nets import RECIPE, images, residual, split
from tests.support.strategies import VALUES, tensor

PATTERNS = [(2, 4), (1, 2), (1, 4), (3, 4), (4, 8)]
DTYPES = [torch.float16, torch.bfloat16, torch.float32]
TIES = st.sampled_from([-2.0, -1.0, -0.0, 0.0, 1.0, 2.0])


@st.composite
def weights(draw: st.DrawFn) -> tuple[Tensor, int, int]:
    """Draw a weight (outputs, inputs, *kernel), ties among it, and n and m that divide its inputs."""
    n, m = draw(st.sampled_from(PATTERNS))
    kernel = draw(st.lists(st.integers(1, 3), max_size=2))
    shape = (draw(st.integers(1, 3)), m * draw(st.integers(1, 3)), *kernel)
    count = math.prod(shape)
    values = draw(st.lists(st.one_of(VALUES, TIES), min_size=count, max_size=count))
    return tensor(values, shape).to(draw(st.sampled_from(DTYPES))), n, m


def slow_mask(weight: Tensor, n: int, m: int) -> Tensor:
    keep = torch.zeros(weight.shape, dtype=torch.bool)
    for output in range(weight.shape[0]):
        for first in range(0, weight.shape[1], m):
            for position in range(weight[0, 0].numel()):
                group = weight[output, first : first + m].reshape(m, -1)[:, position].tolist()
                kept = sorted(range(m), key=lambda i: (abs(group[i]), i))[m - n :]
                for i in kept:
                    keep[output, first + i].view(-1)[position] = True
    return keep


@given(weights())
def test_the_mask_is_that_of_a_plain_loop(drawn: tuple[Tensor, int, int]) -> None:
    weight, n, m = drawn
    before = weight.clone()
    keep = n_of_m_mask(weight, n=n, m=m)
    assert keep.dtype == torch.bool
    assert torch.equal(keep, slow_mask(weight, n, m))
    assert torch.equal(weight.view(torch.uint8), before.view(torch.uint8))


@given(weights())
def test_n_of_each_group_are_kept_and_none_is_smaller_than_a_removed_one(
    drawn: tuple[Tensor, int, int],
) -> None:
    weight, n, m = drawn
    keep = n_of_m_mask(weight, n=n, m=m).unflatten(1, (-1, m))
    assert set(keep.sum(dim=2).unique().tolist()) == {n}
    magnitudes = weight.float().abs().unflatten(1, (-1, m))
    smallest_kept = magnitudes.masked_fill(~keep, torch.inf).amin(dim=2)
    assert bool((smallest_kept >= magnitudes.masked_fill(keep, 0).amax(dim=2)).all())


@given(weights())
def test_pruning_again_changes_nothing(drawn: tuple[Tensor, int, int]) -> None:
    weight, n, m = drawn
    keep = n_of_m_mask(weight, n=n, m=m)
    pruned = weight.masked_fill(~keep, 0)
    assert is_n_of_m(pruned, n=n, m=m)
    assert torch.equal(n_of_m_mask(pruned, n=n, m=m), keep)


@given(weights(), st.randoms(use_true_random=False))
def test_outputs_are_masked_one_by_one(drawn: tuple[Tensor, int, int], random) -> None:
    weight, n, m = drawn
    order = random.sample(range(len(weight)), len(weight))
    keep = n_of_m_mask(weight, n=n, m=m)
    assert torch.equal(n_of_m_mask(weight[order], n=n, m=m), keep[order])


@given(weights())
def test_a_convolutions_mask_is_that_of_its_channels_last_matrix(
    drawn: tuple[Tensor, int, int],
) -> None:
    weight, n, m = drawn
    keep = n_of_m_mask(weight, n=n, m=m)
    rows = weight.movedim(1, -1).reshape(len(weight), -1)  # (outputs, kernel x inputs)
    assert torch.equal(n_of_m_mask(rows, n=n, m=m), keep.movedim(1, -1).reshape(len(weight), -1))
    if weight.ndim == 4:
        strided = weight.contiguous(memory_format=torch.channels_last)
        assert torch.equal(n_of_m_mask(strided, n=n, m=m), keep)


def test_among_equals_the_first_go() -> None:
    assert n_of_m_mask(torch.ones(1, 4)).tolist() == [[False, False, True, True]]
    weight = torch.tensor([[3.0, -1.0, 1.0, 0.0]])
    assert n_of_m_mask(weight).tolist() == [[True, False, True, False]]
    assert n_of_m_mask(weight, n=1, m=2).tolist() == [[True, False, True, False]]


def test_a_group_larger_than_a_byte_counts() -> None:
    keep = n_of_m_mask(torch.arange(300.0).view(1, 300), n=1, m=300)
    assert keep.nonzero().tolist() == [[0, 299]]


def test_what_is_n_of_m() -> None:
    row = torch.tensor([[1.0, 0.0, 0.0, 2.0, 0.0, 0.0, 0.0, 3.0]])
    assert is_n_of_m(row)
    assert is_n_of_m(row, n=1, m=2)
    assert not is_n_of_m(row, n=1, m=4)
    assert not is_n_of_m(row[:, 1:7])  # 6 inputs
    assert not is_n_of_m(row[0])
    assert not is_n_of_m(torch.tensor([[0.0, 1.0, 1.0, 1.0]]))
    across = torch.tensor([[0.0, 0.0, 1.0, 1.0], [1.0, 1.0, 0.0, 0.0]]).T.reshape(1, 4, 2)
    assert is_n_of_m(across)  # 2 of 4 inputs at each of two positions


@pytest.mark.parametrize("of", [(0, 4), (4, 4), (5, 4), (-1, 4), (True, 2), (1, 2.0), ("2", 4)])
def test_n_and_m_that_are_no_pattern_are_refused(of) -> None:
    n, m = of
    for call in (n_of_m_mask, is_n_of_m):
        with pytest.raises(CompressionError, match="whole numbers with 1 <= n < m"):
            call(torch.ones(4, 8), n=n, m=m)
    with pytest.raises(CompressionError, match="whole numbers with 1 <= n < m"):
        prune_n_of_m(residual(), n=n, m=m)


@pytest.mark.parametrize("shape", [(8,), (4, 6), (4, 3, 3, 3)])
def test_a_weight_without_whole_groups_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(CompressionError, match="multiple of 4, found the shape"):
        n_of_m_mask(torch.ones(shape))


def layers_of_each_kind() -> nn.Module:
    torch.manual_seed(0)
    return nn.ModuleDict(
        {
            "linear": nn.Linear(8, 6),
            "conv1d": nn.Conv1d(4, 6, 3),
            "grouped": nn.Conv2d(8, 6, 3, groups=2),
            "conv3d": nn.Conv3d(4, 2, 2),
            "transposed": nn.ConvTranspose2d(8, 6, 3, groups=2),
            "stem": nn.Conv2d(3, 8, 3),
            "depthwise": nn.Conv2d(8, 8, 3, groups=8),
            "narrow groups": nn.Conv2d(8, 8, 1, groups=4),
            "transposed narrow groups": nn.ConvTranspose2d(8, 8, 1, groups=4),
            "six": nn.Linear(6, 4),
        }
    )


def test_layers_with_whole_groups_of_inputs_are_pruned_and_the_others_stay_dense() -> None:
    model = layers_of_each_kind()
    before = {name: t.clone() for name, t in model.state_dict().items()}
    pruned = prune_n_of_m(model)
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())
    sparse = {"linear", "conv1d", "grouped", "conv3d", "transposed"}
    for name, layer in compressible_layers(pruned).items():
        weight, dense = layer.get_parameter("weight"), before[f"{name}.weight"]
        if name in sparse:
            assert int((weight == 0).sum()) == weight.numel() // 2, name
            assert torch.equal(weight[weight != 0], dense[weight != 0]), name
        else:
            assert torch.equal(weight, dense), name
    assert not [n for n in pruned.state_dict() if n.endswith(("_orig", "_mask"))]


def test_a_transposed_convolution_is_pruned_along_what_it_sums_over() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.ConvTranspose2d(8, 6, 1, bias=False))
    weight = prune_n_of_m(model).get_parameter("0.weight")  # (inputs, outputs, 1, 1)
    same = nn.Sequential(nn.Conv2d(8, 6, 1, bias=False))
    with torch.no_grad():
        same[0].weight.copy_(model[0].weight.transpose(0, 1))
    assert torch.equal(prune_n_of_m(same).get_parameter("0.weight"), weight.transpose(0, 1))


def test_a_network_without_whole_groups_is_refused() -> None:
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.Flatten(), nn.Linear(6, 2))
    with pytest.raises(CompressionError, match="multiple of 4, found 0 with 3, 2 with 6"):
        prune_n_of_m(model)
    assert sparsity(prune_n_of_m(model, n=1, m=2)) == pytest.approx(12 / (162 + 12) / 2)


def test_a_tuned_network_is_still_2_of_4() -> None:
    model = prune_n_of_m(residual())
    tuned = fine_tune(model, split(), RECIPE)
    for name in ("conv2", "fc"):
        weight = tuned.get_parameter(f"{name}.weight")
        assert is_n_of_m(weight), name
        assert not torch.equal(weight, model.get_parameter(f"{name}.weight")), name
    assert not is_n_of_m(tuned.get_parameter("conv1.weight"))  # 3 inputs
    assert torch.isfinite(tuned.eval()(images())).all()
