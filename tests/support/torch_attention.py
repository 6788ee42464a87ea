"""Torch's attention of every option, inputs for it, and masks."""

from typing import Any

import torch
from torch import Tensor, nn

OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "batch first": {"batch_first": True},
    "no bias": {"bias": False, "batch_first": True},
    "other widths": {"kdim": 6, "vdim": 10},
    "appended": {"add_bias_kv": True, "add_zero_attn": True, "batch_first": True},
    "appended zeros": {"add_zero_attn": True},
    "appended of other widths": {"add_bias_kv": True, "kdim": 6, "vdim": 10},
}
BATCH, QUERIES, KEYS, WIDTH, HEADS = 3, 5, 4, 8, 2


def held(**options: Any) -> nn.MultiheadAttention:
    torch.manual_seed(0)
    layer = nn.MultiheadAttention(WIDTH, HEADS, dtype=torch.float64, **options).eval()
    with torch.no_grad():  # none is 0
        for parameter in layer.parameters():
            parameter.uniform_(-1, 1)
    return layer


def inputs(layer: nn.MultiheadAttention, *, batched: bool) -> list[Tensor]:
    found = []
    for tokens, width in ((QUERIES, WIDTH), (KEYS, layer.kdim), (KEYS, layer.vdim)):
        shape = (BATCH, tokens, width) if layer.batch_first else (tokens, BATCH, width)
        found.append(torch.randn(shape if batched else (tokens, width), dtype=torch.float64))
    return found


def masks(*, batched: bool) -> dict[str, dict[str, Any]]:
    allowed = torch.arange(KEYS) <= torch.arange(QUERIES)[:, None]
    lengths = torch.arange(KEYS) >= torch.tensor([[2], [3], [4]])
    padding = lengths if batched else lengths[0]
    heads = torch.randn((BATCH if batched else 1) * HEADS, QUERIES, KEYS, dtype=torch.float64)
    return {
        "none": {},
        "bools": {"attn_mask": ~allowed},
        "numbers": {"attn_mask": heads[0]},
        "per head": {"attn_mask": heads},
        "padding": {"key_padding_mask": padding},
        "numbers of padding": {"key_padding_mask": padding.double()},
        "both": {"attn_mask": ~allowed, "key_padding_mask": padding},
        "causal": {"attn_mask": ~allowed, "is_causal": True},
        "causal and padding": {
            "attn_mask": ~allowed,
            "is_causal": True,
            "key_padding_mask": padding,
        },
    }
