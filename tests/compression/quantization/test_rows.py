"""LayerNorm and attention on codes, beside float64."""

import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from compression.affine import QParams, qparams_from_range
from compression.errors import CompressionError
from compression.quantization.attention import QuantizedAttention
from compression.quantization.norm import QuantizedLayerNorm, rounded_root

TIE = 1e-3
"""Of a step: what float32 adds to half a step where the reference is float64."""


def qparams(low: float, high: float) -> QParams:
    return qparams_from_range(torch.tensor(low), torch.tensor(high), symmetric=False)


def codes(*shape: int, seed: int = 0, low: int = -128, high: int = 128) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(low, high, shape, generator=generator).to(torch.int8)


def real(numbers: Tensor, meaning: QParams) -> Tensor:
    return (numbers.double() - meaning.zero_point) * meaning.scale.double()


def norm_of(*shape: int, eps: float = 1e-5, seed: int = 0) -> nn.LayerNorm:
    torch.manual_seed(seed)
    norm = nn.LayerNorm(list(shape), eps)
    nn.init.uniform_(norm.weight, -1.5, 1.5)
    nn.init.normal_(norm.bias, 0, 0.5)
    return norm


@given(st.integers(1, 300), st.integers(0, 5), st.sampled_from([0.0, 1e-5, 0.5]))
def test_a_norm_is_within_half_a_step_of_float64(count: int, seed: int, eps: float) -> None:
    norm, before, after = (
        norm_of(count, eps=eps, seed=seed),
        qparams(-1.0, 3.0),
        qparams(-30.0, 30.0),
    )
    x = codes(4, count, seed=seed)
    x[0] = x[0, 0]  # a row without a spread
    found = real(QuantizedLayerNorm(norm, before, after, "norm")(x), after)
    wanted = F.layer_norm(
        real(x, before), [count], norm.weight.double(), norm.bias.double(), max(eps, 1e-30)
    )
    assert (found - wanted).abs().max() <= (0.5 + TIE) * float(after.scale)


def test_mean_and_variance_are_exact_where_float32_rounds_its_sums() -> None:
    count = 2**19
    before, after = qparams(0.0, 1.0), qparams(-4.0, 4.0)
    x = torch.full((1, count), 127, dtype=torch.int8)
    x[:, ::2] = 126
    plain = nn.LayerNorm(count, eps=0.0, elementwise_affine=False)
    found = real(QuantizedLayerNorm(plain, before, after, "norm")(x), after)
    assert (found.abs() - 1).abs().max() <= 0.51 * float(after.scale)
    with pytest.raises(
        CompressionError, match="norm: a LayerNorm on codes takes rows of 1 to 524288"
    ):
        QuantizedLayerNorm(nn.LayerNorm(count + 1), before, after, "norm")


def test_a_root_is_the_nearest_float32() -> None:
    """torch's own of so many at once is not, for one in 200 (306212096 on AVX-512, with MKL)."""
    generator = torch.Generator().manual_seed(0)
    squares = torch.randint(2**20, 2**31, (20_000,), generator=generator).float()
    squares[0] = 306212096.0
    roots = rounded_root(squares)
    for square, root in zip(squares.tolist(), roots.tolist(), strict=True):
        half = Fraction(math.ulp(root)) * 2**28  # half a step of float32
        assert (Fraction(root) - half) ** 2 <= Fraction(square) <= (Fraction(root) + half) ** 2


def test_a_norm_of_several_dimensions_is_one_of_their_numbers() -> None:
    norm, before, after = norm_of(3, 4), qparams(-1.0, 2.0), qparams(-6.0, 6.0)
    x = codes(2, 5, 3, 4)
    found = real(QuantizedLayerNorm(norm, before, after, "norm")(x), after)
    wanted = norm.double()(real(x, before))
    assert (found - wanted).abs().max() <= (0.5 + TIE) * float(after.scale)


IN = [qparams(-3.0, 2.0), qparams(-2.0, 4.0), qparams(-1.0, 5.0)]
AFTER = qparams(-1.0, 5.0)


def attended(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, scale: float | None = None
) -> tuple[Tensor, Tensor]:
    """Return what codes attend to, and what their real numbers do in float64."""
    module = QuantizedAttention(IN, AFTER, scale=scale, mask=mask)
    x, y, z = (real(x, meaning) for x, meaning in zip((q, k, v), IN, strict=True))
    added = None if mask is None else mask.double()
    wanted = F.scaled_dot_product_attention(x, y, z, added, scale=scale)
    return real(module(q, k, v), AFTER), wanted


# scale of scores: (largest error, root of the mean square), in steps of the output
ERRORS = {
    1e-5: (0.51, 0.31),  # all keys count: half a step, as of any rounding
    0.01: (0.6, 0.32),
    None: (5.0, 1.0),  # few keys count: each weight is off by up to half of 255ths of the largest
}


@pytest.mark.parametrize("scale", ERRORS)
@pytest.mark.parametrize(("depth", "keys"), [(1, 1), (7, 33), (64, 197), (300, 300)])
def test_attention_is_near_float64(depth: int, keys: int, scale: float | None) -> None:
    q, k, v = codes(2, 3, 5, depth), codes(2, 3, keys, depth, seed=1), codes(2, 3, keys, 9, seed=2)
    found, wanted = attended(q, k, v, scale=scale)
    error = (found - wanted).abs() / float(AFTER.scale)
    largest, usual = ERRORS[scale]
    assert error.max() <= largest
    assert error.square().mean().sqrt() <= usual


def test_keys_that_score_alike_count_alike_however_many() -> None:
    q, k = torch.zeros(1, 2, 8, dtype=torch.int8), torch.zeros(1, 5000, 8, dtype=torch.int8)
    v = codes(1, 5000, 4)
    found, wanted = attended(q, k, v)
    assert (found - wanted).abs().max() <= (0.5 + TIE) * float(AFTER.scale)


def test_a_mask_is_added_and_what_it_forbids_counts_nothing() -> None:
    q, k, v = codes(2, 4, 6, low=-9, high=9), codes(2, 7, 6, low=-9, high=9), codes(2, 7, 3)
    mask = torch.randn(4, 7, generator=torch.Generator().manual_seed(0))
    mask[:, 3:] = -torch.inf
    found, wanted = attended(q, k, v, mask)
    assert (found - wanted).abs().max() <= 1.0 * float(AFTER.scale)
    other = v.clone()
    other[:, 3:] = -128
    assert torch.equal(attended(q, k, other, mask)[0], found)


def test_causal_attention_sees_what_came_before() -> None:
    q, k, v = codes(1, 5, 4), codes(1, 5, 4, seed=1), codes(1, 5, 3)
    module = QuantizedAttention(IN, AFTER, scale=None, causal=True)
    changed = v.clone()
    changed[:, 3:] += 1
    assert torch.equal(module(q, k, v)[:, :3], module(q, k, changed)[:, :3])


def test_a_head_too_wide_for_int32_is_refused() -> None:
    wide = torch.zeros(1, 2, 4097, dtype=torch.int8)
    with pytest.raises(CompressionError, match="heads of at most 4096 channels, found 4097"):
        QuantizedAttention(IN, AFTER, scale=None)(wide, wide, wide)
