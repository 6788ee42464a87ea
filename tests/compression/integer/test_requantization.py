"""Requantization against integer arithmetic in float64, over layers, ranges and residuals."""

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from compression.affine import QParams, qparams_from_range
from compression.quantization.modules import QuantizedLayer

# what: (bound, reason)
TOLERANCES = {
    "sum": (
        2.0**-20,
        "of the magnitudes' sum beyond 2^24: up to there float32 holds every integer",
    ),
    "code": (1, "a tie that float32 rounds to the other side"),
    "distance from a tie": (2e-3, "codes differ only where float64 is this near to a half"),
}
positive = st.floats(2.0**-7, 128.0, width=32)


def codes(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randint(-128, 128, shape, dtype=torch.int8, generator=generator)


def integer_sums(
    layer: QuantizedLayer, inputs: Tensor, window: int, *, magnitude: bool = False
) -> Tensor:
    """Return the layer's sums by int64 arithmetic (N, channels, pixels), or those of magnitudes."""
    centred = inputs.to(torch.int64) - int(layer.input_zero_point)
    padded = F.pad(centred, (window // 2,) * 4)  # the real number 0
    patches = F.unfold(padded.double(), window).to(torch.int64)
    weights, bias = layer.codes.to(torch.int64).flatten(1), layer.bias.to(torch.int64)[:, None]
    if magnitude:
        weights, patches, bias = weights.abs(), patches.abs(), bias.abs()
    return weights @ patches + bias


@given(
    seed=st.integers(0, 2**32 - 1),
    channels=st.tuples(st.integers(1, 40), st.integers(1, 8)),
    window=st.sampled_from([1, 3, 5]),
    low=positive,
    high=positive,
    reach=positive,
    relu=st.booleans(),
    other=st.none() | st.tuples(positive, positive),
)
def test_requantization_is_that_of_integers(
    seed: int,
    channels: tuple[int, int],
    window: int,
    low: float,
    high: float,
    reach: float,
    relu: bool,
    other: tuple[float, float] | None,
) -> None:
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)

    def between(bottom: float, top: float) -> QParams:
        return qparams_from_range(torch.tensor(bottom), torch.tensor(top), symmetric=False)

    inputs, output = between(-low, high), between(0.0 if relu else -reach, reach)
    residual = [between(-other[0], other[1])] if other else []
    layer = nn.Conv2d(*channels, window, padding=window // 2)
    quantized = QuantizedLayer(layer, inputs, output, "conv", residual=residual)
    x = codes(generator, 2, channels[0], 4, 5)
    z = codes(generator, 2, channels[1], 4, 5)
    sums = integer_sums(quantized, x, window)
    error = (quantized.sums(x).flatten(2).to(torch.int64) - sums).abs()
    steps = integer_sums(quantized, x, window, magnitude=True).double()
    assert (error <= TOLERANCES["sum"][0] * steps.where(steps > 2**24, 0)).all()
    exact = sums.double() * (
        inputs.scale.double() * quantized.weight_scale.double() / output.scale.double()
    ).view(-1, 1)
    for part in residual:
        centred = z.flatten(2).double() - int(part.zero_point)
        exact += centred * (part.scale.double() / output.scale.double())
    wanted = (torch.round(exact) + int(output.zero_point)).clamp(-128, 127)
    found = (quantized(x, z) if residual else quantized(x)).flatten(2).double()
    differing = wanted != found
    assert (wanted - found).abs().max() <= TOLERANCES["code"][0]
    from_tie = ((exact[differing] - exact[differing].floor()) - 0.5).abs()
    assert (from_tie <= TOLERANCES["distance from a tie"][0]).all()
