"""Attention by hand: heads go where the forward reads their number off its tensors, else offsets."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compression.accounting import count_macs
from compression.channels import Channels, Width, follow, kept_reasons, widths_of
from tests.support.hand_nets import (
    ALL_STAY,
    DIM,
    HEADS,
    HEADS_GO,
    OFFSETS_GO,
    TOKENS,
    WIDTH,
    Block,
    Mix,
)
from tests.support.removed import check_cut
from tests.support.small_torchvision import made


def followed(mix: Mix) -> tuple[int, Channels, list[Width]]:
    """Assert the property; return the products that are not followed, and what hangs together."""
    torch.manual_seed(0)
    model, x = Block(mix).eval().double(), torch.randn(TOKENS).double()
    for seed in range(2):
        check_cut(model, (x,), (torch.randn_like(x),), seed)
    channels = follow(model, (x,))
    parts: list[Any] = [*channels.products, *channels.pairs]
    unfollowed = count_macs(model, x) - sum(part.macs for part in parts)
    return unfollowed, channels, widths_of(channels)


@pytest.mark.parametrize("name", HEADS_GO)
def test_heads_go(name: str) -> None:
    unfollowed, _, (width,) = followed(HEADS_GO[name])
    assert unfollowed == 0
    assert len(width.units) == HEADS
    held = {f"{p.module}.{p.attribute}": n for (p, axis), n in width.places.items() if axis == 0}
    queries = held.get("q.weight", held.get("qkv.weight"))
    assert queries in (DIM, 3 * DIM)


@pytest.mark.parametrize("name", OFFSETS_GO)
def test_offsets_go_where_heads_are_fixed(name: str) -> None:
    *_, widths = followed(OFFSETS_GO[name])
    assert {len(width.units) for width in widths} == {DIM}


@pytest.mark.parametrize("name", ALL_STAY)
def test_what_has_fixed_sizes_stays(name: str) -> None:
    mix, reason = ALL_STAY[name]
    _, channels, widths = followed(mix)
    assert widths == []
    assert reason in kept_reasons(channels)["qkv.weight"]


class Grouped(nn.Module):
    """Two heads of queries for each one of keys and values."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.kv, self.head = nn.Linear(6, 16), nn.Linear(6, 16), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        q = self.q(x).unflatten(-1, (-1, 4)).transpose(1, 2)
        k, v = self.kv(x).unflatten(-1, (2, -1, 4)).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v, enable_gqa=True)
        return self.head(y.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


def test_heads_that_share_keys_stay() -> None:
    model, x = Grouped().eval().double(), torch.randn(2, 5, 6).double()
    check_cut(model, (x,), (torch.randn_like(x),))
    assert "attention needs all of its heads" in kept_reasons(follow(model, (x,)))["q.weight"]


def test_windows_of_swin_keep_their_heads() -> None:
    model, x = made("swin"), torch.randn(2, 3, 32, 32).double()
    channels = follow(model, (x,))
    reasons = kept_reasons(channels)
    assert "features.1.0.mlp.0.weight" not in reasons
    assert WIDTH == HEADS * DIM
