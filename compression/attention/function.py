"""Attention as a function of projected queries, keys and values, with torch's masks."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from compression.errors import CompressionError


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    head_dim: int,
    scale: float,
    batch_first: bool,
    more: tuple[Tensor | None, Tensor | None, bool],
    masks: tuple[Tensor | None, Tensor | None, bool],
    weights: tuple[bool, bool],
    dropout: float,
) -> tuple[Tensor, Tensor | None]:
    """Attend with projected queries, keys and values, whose channels are heads of `head_dim`.

    `more` are a key and a value to append and whether to append zeros, `masks` those of positions
    and of padding and whether the first is causal, `weights` whether to return them, and their mean.
    Nested tensors, such as nn.TransformerEncoder makes of a padded batch, have neither.
    """
    if query.is_nested:
        return _attend_each(
            (query, key, value), masks, weights[0],
            head_dim=head_dim, scale=scale, batch_first=batch_first, more=more, dropout=dropout,
        ), None  # fmt: skip
    laid = [_batch_first(x, batch_first) for x in (query, key, value)]
    q, k, v = (_heads(x, head_dim) for x in laid)
    k, v = _longer(k, more[0], more[2]), _longer(v, more[1], more[2])
    mask = _mask(masks, q, k, laid[1].shape[1], keep_causal=weights[0])
    if weights[0]:
        scores = q * scale @ k.transpose(-2, -1)
        shares = F.dropout((scores if mask is None else scores + mask).softmax(-1), dropout)
        found = shares @ v
    else:
        causal = masks[2] and mask is None
        found = F.scaled_dot_product_attention(q, k, v, mask, dropout, causal, scale=scale)
        shares = None
    found = found.transpose(1, 2).flatten(2)
    if shares is not None:
        shares = shares.mean(1) if weights[1] else shares
    if query.ndim == 2:
        return found.squeeze(0), None if shares is None else shares.squeeze(0)
    return found if batch_first else found.transpose(0, 1), shares


def _attend_each(
    inputs: tuple[Tensor, ...],
    masks: tuple[Tensor | None, Tensor | None, bool],
    need_weights: bool,
    **options: Any,
) -> Tensor:
    """Attend within each row of nested tensors."""
    if need_weights or masks[2] or any(mask is not None for mask in masks[:2]):
        raise CompressionError(
            "attention of nested tensors takes no masks and returns no weights; pass "
            "need_weights=False"
        )
    rows = zip(*(x.unbind() for x in inputs), strict=True)
    return torch.nested.as_nested_tensor(
        [attend(*row, masks=masks, weights=(False, False), **options)[0] for row in rows]
    )


def _batch_first(x: Tensor, already: bool) -> Tensor:
    """Return (batch, tokens, channels); tokens without a batch are a batch of one."""
    if x.ndim == 2:
        return x.unsqueeze(0)
    return x if already else x.transpose(0, 1)


def _heads(x: Tensor, head_dim: int) -> Tensor:
    """Return (batch, tokens, channels) as (batch, heads, tokens, channels of a head)."""
    return x.unflatten(-1, (-1, head_dim)).transpose(1, 2)


def _longer(x: Tensor, token: Tensor | None, zeros: bool) -> Tensor:
    """Append a token that was learned, and one of zeros."""
    if token is not None:
        last = _heads(token, x.shape[-1]).expand(len(x), -1, -1, -1)
        x = torch.cat([x, last], 2)
    return F.pad(x, (0, 0, 0, 1)) if zeros else x


def _mask(
    masks: tuple[Tensor | None, Tensor | None, bool],
    q: Tensor,
    k: Tensor,
    tokens: int,
    *,
    keep_causal: bool,
) -> Tensor | None:
    """Return what to add to (batch, heads, queries, keys); None where `is_causal` says it all."""
    attention, padding, causal = masks
    if causal and attention is None:
        raise CompressionError("is_causal is a hint about attn_mask: expected the mask, found None")
    if causal and padding is None and not keep_causal:
        return None
    batch, heads, queries = q.shape[:3]
    found: Tensor | None = None
    if attention is not None:
        _check(attention, "attn_mask", (queries, tokens), (batch * heads, queries, tokens))
        found = added_mask(attention, q.dtype)
        found = found.view(batch, heads, queries, tokens) if found.ndim == 3 else found[None, None]
    if padding is not None:
        _check(padding, "key_padding_mask", (tokens,), (batch, tokens))
        padded = added_mask(padding, q.dtype).view(batch, 1, 1, tokens)
        found = padded if found is None else found + padded
    return None if found is None else F.pad(found, (0, k.shape[2] - tokens))


def _check(mask: Tensor, name: str, *shapes: tuple[int, ...]) -> None:
    if tuple(mask.shape) not in shapes:
        raise CompressionError(
            f"{name}: expected the shape {' or '.join(map(str, shapes))}, found {tuple(mask.shape)}"
        )


def added_mask(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """Return a mask as numbers to add: -inf where a bool one is true."""
    if mask.dtype == torch.bool:
        return torch.zeros_like(mask, dtype=dtype).masked_fill_(mask, -torch.inf)
    if not mask.is_floating_point():
        raise CompressionError(f"a mask holds bools or floats, found {mask.dtype}")
    return mask.to(dtype)
