"""Attention that a forward writes out by hand, in the ways that people do."""

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

WIDTH, HEADS, DIM = 12, 3, 4
TOKENS = (2, 5, WIDTH)
Mix = Callable[["Block", Tensor], Tensor]


class Block(nn.Module):
    """Attention of a kind within a residual, between norms."""

    def __init__(self, mix: Mix) -> None:
        super().__init__()
        self.mix, self.num_heads, self.head_dim, self.scale = mix, HEADS, DIM, DIM**-0.5
        self.norm, self.qkv = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 3 * WIDTH)
        self.q, self.k, self.v = (nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.key, self.value = nn.Linear(WIDTH, DIM), nn.Linear(WIDTH, DIM)
        self.proj, self.head = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 3)
        self.bias, self.mask = (
            nn.Parameter(torch.rand(HEADS, 5, 5)),
            nn.Buffer(torch.ones(5, 5).tril()),
        )
        self.temperature = nn.Parameter(torch.rand(HEADS, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.proj(self.mix(self, self.norm(x)))
        return cast(Tensor, self.head(self.norm(x)))


def packed(s: Block, x: Tensor, *sizes: int) -> tuple[Tensor, Tensor, Tensor]:
    n, t, _ = x.shape
    q, k, v = s.qkv(x).reshape(n, t, 3, *sizes).permute(2, 0, 3, 1, 4).unbind(0)
    return q, k, v


def apart(s: Block, x: Tensor, *sizes: int) -> tuple[Tensor, Tensor, Tensor]:
    n, t, _ = x.shape
    q, k, v = (layer(x).view(n, t, *sizes).transpose(1, 2) for layer in (s.q, s.k, s.v))
    return q, k, v


def chunked(s: Block, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    parts = s.qkv(x).chunk(3, dim=-1)
    q, k, v = (parts[i].unflatten(-1, (-1, DIM)).transpose(1, 2) for i in range(3))
    return q, k, v


def joined(y: Tensor) -> Tensor:
    return y.transpose(1, 2).flatten(2)


def shares(s: Block, q: Tensor, k: Tensor) -> Tensor:
    return (q * s.scale @ k.transpose(-2, -1)).softmax(-1)


def by_hand(s: Block, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return joined(shares(s, q, k) @ v)


def fused(s: Block, q: Tensor, k: Tensor, v: Tensor, **options: Any) -> Tensor:
    return joined(F.scaled_dot_product_attention(q, k, v, **options))


def timm(s: Block, x: Tensor) -> Tensor:
    n, t, c = x.shape
    q, k, v = packed(s, x, s.num_heads, c // s.num_heads)
    return (shares(s, q, k) @ v).transpose(1, 2).reshape(n, t, c)


def positions(s: Block, x: Tensor) -> Tensor:
    q, k, v = packed(s, x, -1, DIM)
    scores = F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-2, -1)
    return joined((scores * s.temperature + s.bias).masked_fill(s.mask == 0, -1e9).softmax(-1) @ v)


def queries(s: Block, x: Tensor, kind: Callable[..., Tensor]) -> Tensor:
    """Several heads of queries share one of keys and values."""
    q = s.q(x).unflatten(-1, (-1, DIM)).transpose(1, 2)
    k, v = (layer(x).unsqueeze(1) for layer in (s.key, s.value))
    return kind(s, q, k, v)


def folded(s: Block, x: Tensor) -> Tensor:
    """Heads lie in the batch, for bmm."""
    n, t, _ = x.shape
    q, k, v = (y.reshape(-1, t, DIM) for y in apart(s, x, -1, DIM))
    y = torch.bmm(torch.softmax(torch.bmm(q * s.scale, k.transpose(1, 2)), -1), v)
    return y.view(n, -1, t, DIM).transpose(1, 2).flatten(2)


def lettered(s: Block, x: Tensor, *sizes: int, scale: bool = True) -> Tensor:
    """Heads by letters, never transposed."""
    q, k, v = (layer(x).unflatten(-1, sizes) for layer in (s.q, s.k, s.v))
    scores = torch.einsum("bihd, bjhd -> bhij", q, k) * (s.scale if scale else q.size(-1) ** -0.5)
    return torch.einsum("bhij,bjhd->bihd", scores.softmax(-1), v).flatten(2)


def by_size(s: Block, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return joined((q @ k.transpose(-2, -1) * q.size(-1) ** -0.5).softmax(-1) @ v)


HEADS_GO: dict[str, Mix] = {
    "packed, by hand": lambda s, x: by_hand(s, *packed(s, x, -1, DIM)),
    "packed, fused": lambda s, x: fused(s, *packed(s, x, -1, DIM)),
    "apart, by hand": lambda s, x: by_hand(s, *apart(s, x, -1, DIM)),
    "apart, fused": lambda s, x: fused(s, *apart(s, x, -1, DIM)),
    "chunked": lambda s, x: fused(s, *chunked(s, x)),
    "attribute": lambda s, x: by_hand(s, *packed(s, x, -1, s.head_dim)),
    "scale by size": lambda s, x: by_size(s, *apart(s, x, -1, DIM)),
    "masked": lambda s, x: fused(s, *apart(s, x, -1, DIM), attn_mask=s.mask),
    "biased": lambda s, x: fused(s, *apart(s, x, -1, DIM), attn_mask=s.bias),
    "biased by head": lambda s, x: joined(
        F.scaled_dot_product_attention(*apart(s, x, -1, DIM), s.temperature)
    ),
    "causal": lambda s, x: fused(s, *apart(s, x, -1, DIM), is_causal=True),
    "positions": positions,
    "queries, fused": lambda s, x: queries(s, x, fused),
    "queries, by hand": lambda s, x: queries(s, x, by_hand),
    "folded": folded,
    "letters": lambda s, x: lettered(s, x, -1, DIM),
    "letters, scaled by size": lambda s, x: lettered(s, x, -1, DIM, scale=False),
}
OFFSETS_GO: dict[str, Mix] = {
    "packed, by hand": lambda s, x: by_hand(s, *packed(s, x, HEADS, -1)),
    "apart, by hand": lambda s, x: by_hand(s, *apart(s, x, HEADS, -1)),
    "packed, scaled": lambda s, x: fused(s, *packed(s, x, HEADS, -1), scale=0.5),
    "letters": lambda s, x: lettered(s, x, HEADS, -1),
    "values, fused": lambda s, x: fused(s, *apart(s, x, HEADS, -1)),
}
ALL_STAY: dict[str, tuple[Mix, str]] = {
    "timm": (timm, "channels cannot be told apart or sizes are fixed"),
    "offsets, fused": (
        lambda s, x: fused(s, *packed(s, x, HEADS, -1)), "attention's scale counts its channels"
    ),
    "offsets, scaled by size": (
        lambda s, x: by_size(s, *packed(s, x, HEADS, -1)), "the number of its channels is computed"
    ),
    "masks of heads": (
        lambda s, x: fused(s, *packed(s, x, -1, DIM), attn_mask=s.mask.repeat(2, 3, 1, 1)),
        "each head has a mask",
    ),
    "a mask of channels": (
        lambda s, x: fused(s, *packed(s, x, -1, DIM), attn_mask=s.qkv(x)[..., None, :5, :1]),
        "channels cannot be told apart",
    ),
    "shared by some": (
        lambda s, x: fused(
            s, *(y[:, :n] for y, n in zip(packed(s, x, -1, 2), (6, 2, 2), strict=True)), enable_gqa=True
        ),
        "channels cannot be told apart",
    ),
}  # fmt: skip
