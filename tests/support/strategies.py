"""Tensors that hypothesis draws for the property tests."""

import hypothesis
import numpy as np
import torch
from hypothesis import strategies as st
from torch import Tensor

FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False, allow_subnormal=True)
EDGES = st.sampled_from(
    [0.0, -0.0, 1e-45, -1e-45, 2.0**-126, 1.7e38, -1.7e38, 1e-30, 0.5, 1.0, -3.0]
)
# Half the range of float32: a range of both signs then stays finite.
BOUNDED = st.floats(width=32, min_value=-(2.0**126), max_value=2.0**126, allow_subnormal=True)
VALUES = st.one_of(BOUNDED, EDGES, st.floats(-10, 10, width=32))


def tensor(values: list[float], shape: tuple[int, ...]) -> Tensor:
    """Return float32 values in a shape."""
    return torch.from_numpy(np.array(values, dtype=np.float32)).view(shape)


@st.composite
def tensors(draw: st.DrawFn, *, min_dims: int = 0, max_dims: int = 3) -> Tensor:
    """Draw a float32 tensor: 0-dim, constant, zeros, subnormal and huge ones among them."""
    shape = tuple(draw(st.lists(st.integers(1, 5), min_size=min_dims, max_size=max_dims)))
    count = int(np.prod(shape, dtype=int))
    if draw(st.booleans()):
        return torch.full(shape, draw(VALUES), dtype=torch.float32)
    return tensor(draw(st.lists(VALUES, min_size=count, max_size=count)), shape)


BITS = st.integers(2, 8)


def examples(factor: float) -> int:
    """Return so many times the examples of the profile, which the nightly one raises."""
    return max(1, round(hypothesis.settings.default.max_examples * factor))
