"""GPTQ against its own definition, one weight at a time, and what it promises."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from compression.affine import choose_qparams, quantize
from compression.quantization import gptq as rounding
from compression.quantization.gptq import gptq

# what: (bound, reason)
TOLERANCES = {
    "a tie": (1e-9, "float64 by another formula; a number so near a half may go either way"),
    "of nearest": (0.5, "correlated inputs: rounding columns together more than halves the error"),
}


def inputs(columns: int, *, groups: int = 1, rows: int = 200, seed: int = 0) -> Tensor:
    """Return correlated inputs, as a layer of a network has."""
    generator = torch.Generator().manual_seed(seed)
    few = torch.randn(groups, rows, max(1, columns // 3), generator=generator, dtype=torch.float64)
    mixed = torch.randn(groups, few.shape[2], columns, generator=generator, dtype=torch.float64)
    noise = torch.randn(groups, rows, columns, generator=generator, dtype=torch.float64)
    return few @ mixed + 0.3 * noise


def weights(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def scales(weight: Tensor, largest: int) -> Tensor:
    return (weight.abs().amax(2, keepdim=True) / largest).expand_as(weight).contiguous()


def errors(weight: Tensor, codes: Tensor, scale: Tensor, hessian: Tensor) -> Tensor:
    difference = weight - codes * scale
    return torch.einsum("gok,gkl,gol->go", difference, hessian, difference)


def one_at_a_time(
    weight: Tensor, hessian: Tensor, scale: Tensor, largest: int
) -> tuple[Tensor, float]:
    """Return a filter's codes by Optimal Brain Quantization, and how near to a tie the closest was.

    After each weight, H is inverted anew for those that are left (Frantar and Alistarh 2022, equation
    3).
    """
    damping = rounding.DAMPING[0] * hessian.diagonal().mean()
    damped = hessian + damping * torch.eye(len(hessian))
    weight, codes, nearest_tie = weight.clone(), torch.empty_like(weight), 1.0
    left = hessian.diagonal().argsort(descending=True).tolist()
    end = weight.abs().argmax()
    while left:
        i = left[0]
        inverse = damped[left][:, left].inverse()
        exact = weight[i] / scale[i]
        code = exact.round().clamp(-largest, largest)
        if i == end:
            code = torch.sign(weight[i]) * largest
        else:
            nearest_tie = min(nearest_tie, float((exact - exact.floor() - 0.5).abs()))
        codes[i] = code
        weight[left] -= (weight[i] - code * scale[i]) / inverse[0, 0] * inverse[0]
        left = left[1:]
    return codes, nearest_tie


@pytest.mark.parametrize("columns", [1, 2, 7, 40])
@pytest.mark.parametrize("largest", [1, 3, 7, 127])
def test_it_is_optimal_brain_quantization(
    columns: int, largest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rounding, "BLOCK", 16)
    found = inputs(columns)
    hessian, weight = found.mT @ found, weights(1, 8, columns)
    scale = scales(weight, largest)
    codes = gptq(weight, hessian, scale, largest)
    nearest = (weight / scale).round().clamp(-largest, largest)
    compared = 0
    for row in range(8):
        found, tie = one_at_a_time(weight[0, row], hessian[0], scale[0, row], largest)
        if tie < TOLERANCES["a tie"][0]:
            continue
        tried = torch.stack([found, nearest[0, row]])
        difference = weight[0, row] - tried * scale[0, row]
        error = ((difference @ hessian[0]) * difference).sum(1)
        assert codes[0, row].equal(tried[0 if error[0] < error[1] else 1])
        compared += 1
    assert compared >= 6


@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(1, 20)),
    num_bits=st.integers(2, 8),
    rows=st.integers(0, 30),
    seed=st.integers(0, 99),
)
def test_no_filter_errs_more_than_by_the_nearest_codes(
    shape: tuple[int, int, int], num_bits: int, rows: int, seed: int
) -> None:
    groups, _, columns = shape
    largest = 2 ** (num_bits - 1) - 1
    found = inputs(columns, groups=groups, rows=rows, seed=seed)
    found[:, :, :: 1 + seed % 4] = 0  # dead inputs
    weight, hessian = weights(*shape, seed=seed), found.mT @ found
    scale = scales(weight, largest)
    codes = gptq(weight, hessian, scale, largest)
    nearest = (weight / scale).round()
    assert codes.abs().max() <= largest
    assert codes.equal(codes.round())
    assert (errors(weight, codes, scale, hessian) <= errors(weight, nearest, scale, hessian)).all()
    dead = (hessian.diagonal(dim1=1, dim2=2) == 0)[:, None].expand_as(codes)
    assert codes[dead].equal(nearest[dead])


@pytest.mark.parametrize("num_bits", [2, 3, 4, 8])
def test_errors_are_less_than_half(num_bits: int) -> None:
    largest = 2 ** (num_bits - 1) - 1
    found, weight = inputs(200, groups=2, rows=1000), weights(2, 30, 200)
    hessian, scale = found.mT @ found, scales(weight, largest)
    ours, nearest = (
        errors(weight, codes, scale, hessian).sum()
        for codes in (gptq(weight, hessian, scale, largest), (weight / scale).round())
    )
    assert ours < TOLERANCES["of nearest"][0] * nearest


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("group_size", [None, 16])
@pytest.mark.parametrize("num_bits", range(2, 9))
def test_rounded_weights_are_rounded_to_themselves(
    num_bits: int, group_size: int | None, dtype: torch.dtype
) -> None:
    weight, found = weights(6, 50).to(dtype), inputs(50)
    axis = 0 if group_size is None else None
    options = {"num_bits": num_bits, "axis": axis, "group_size": group_size}
    qparams = choose_qparams(weight, **options)  # type: ignore[arg-type]
    scale = qparams.scale.view(6, -1).repeat_interleave(group_size or 50, 1)[:, :50]
    hessian = (found.mT @ found).float()
    codes = gptq(weight[None].float(), hessian, scale[None], qparams.qmax)[0]
    on_grid = (codes * scale).to(dtype)
    again = choose_qparams(on_grid, **options)  # type: ignore[arg-type]
    assert quantize(on_grid, again).float().equal(codes)
    assert not codes.equal(quantize(weight, qparams).float())
