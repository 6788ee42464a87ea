"""Attention and LayerNorm of any size, and networks around one of them."""

from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from tests.support.integer_nets import numbers
from tests.support.transformer_nets import Made, lively

MASKS = ("none", "causal", "bools", "numbers", "per head", "nothing seen")


class Attending(nn.Module):
    """The first tokens attend to the last ones; values have channels of their own."""

    def __init__(
        self, tokens: tuple[int, int], heads: int, depth: int, channels: int, *, mask: str = "none",
        scale: float | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.queries, self.keys = tokens
        self.heads, self.causal, self.scale = heads, mask == "causal", scale
        self.q, self.k = (nn.Linear(6, heads * depth) for _ in range(2))
        self.v = nn.Linear(6, heads * channels)
        self.register_buffer("mask", mask_of(mask, heads, *tokens))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (
            self.q(x[:, : self.queries]),
            self.k(x[:, -self.keys :]),
            self.v(x[:, -self.keys :]),
        )
        q, k, v = (t.unflatten(2, (self.heads, -1)).transpose(1, 2) for t in (q, k, v))
        y = F.scaled_dot_product_attention(
            q, k, v, attn_mask=self.mask, is_causal=self.causal, scale=self.scale
        )
        return y.transpose(1, 2).flatten(2)


def mask_of(name: str, heads: int, queries: int, keys: int) -> Tensor | None:
    """Return a mask of a kind in MASKS; "nothing seen" hides all keys from the last query."""
    seen = torch.arange(keys) <= torch.arange(queries)[:, None]
    hidden = torch.zeros(queries, keys).index_fill(0, torch.tensor(queries - 1), -torch.inf)
    made: dict[str, Any] = {
        "bools": seen, "numbers": numbers(queries, keys), "nothing seen": hidden,
        "per head": numbers(heads, queries, keys).masked_fill(~seen, -torch.inf),
    }  # fmt: skip
    return made.get(name)


def attending(
    tokens: tuple[int, int],
    heads: int,
    depth: int,
    channels: int,
    *,
    batch: int = 2,
    **options: Any,
) -> Made:
    """Return a network of one attention, and tokens for it."""
    torch.manual_seed(0)
    model = Attending(tokens, heads, depth, channels, **options)
    return lively(model), numbers(batch, max(tokens), 6)


@st.composite
def attentions(draw: st.DrawFn) -> Made:
    """Any attention: few tokens and many, heads of any width, each kind of mask."""
    tokens = draw(st.tuples(*[st.sampled_from((1, 2, 5, 17, 33, 70))] * 2))
    heads = draw(st.integers(1, 3))
    depth, channels = (draw(st.sampled_from((1, 4, 7, 33))) for _ in range(2))
    scale = draw(st.sampled_from((None, 1e-6, 0.5, 1e4)))
    mask, batch = draw(st.sampled_from(MASKS)), draw(st.sampled_from((1, 3)))
    return attending(tokens, heads, depth, channels, batch=batch, mask=mask, scale=scale)


def normed(channels: int, *, tokens: int = 5, batch: int = 2, eps: float = 1e-5) -> Made:
    """Return a LayerNorm between two linear layers, and tokens of which some are alike."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Linear(3, channels), nn.LayerNorm(channels, eps=eps), nn.Linear(channels, 4)
    )
    x = numbers(batch, tokens, 3)
    x[0, 0] = 0
    return lively(net), x


@st.composite
def norms(draw: st.DrawFn) -> Made:
    """Any LayerNorm of a few rows."""
    return normed(
        draw(st.integers(1, 90)), tokens=draw(st.integers(1, 40)),
        batch=draw(st.sampled_from((1, 3))), eps=draw(st.sampled_from((1e-12, 1e-5, 1.0, 1e30))),
    )  # fmt: skip
