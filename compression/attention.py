"""Attention of any number of heads: nn.MultiheadAttention written out in linear layers."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compression.errors import CompressionError

PROJECTIONS = ("q_proj", "k_proj", "v_proj", "out_proj")


class Attention(nn.Module):
    """What `held` computes, in four linear layers, which may hold fewer heads than `held` can.

    nn.MultiheadAttention ties the channels of its heads to those of its inputs; here they are those
    of the projections. A call takes and gives what a call of `held` does, whose `scale` stays. The
    fast paths of nn.TransformerEncoderLayer pass it by. Vaswani et al. 2017, arXiv:1706.03762.

    >>> written = Attention(nn.MultiheadAttention(16, 4, batch_first=True))
    >>> x = torch.randn(2, 5, 16)
    >>> written(x, x, x)[0].shape
    torch.Size([2, 5, 16])
    """

    # What nn.TransformerEncoderLayer asks before it takes its fast path, which knows one width only.
    in_proj_weight = None
    in_proj_bias = None
    _qkv_same_embed_dim = False

    def __init__(self, held: nn.MultiheadAttention) -> None:
        """Take over the weights of `held`, some of whose heads may have been cut away."""
        super().__init__()
        self.head_dim, self.scale = held.head_dim, held.head_dim**-0.5
        self.dropout, self.batch_first = held.dropout, held.batch_first
        self.add_zero_attn = held.add_zero_attn
        self.q_proj, self.k_proj, self.v_proj = map(_linear, _weights(held), _biases(held))
        self.out_proj = _linear(held.out_proj.weight, held.out_proj.bias)
        self.bias_k, self.bias_v = held.bias_k, held.bias_v
        self.train(held.training)

    @property
    def embed_dim(self) -> int:
        """The channels of queries."""
        return self.q_proj.in_features

    @property
    def num_heads(self) -> int:
        """The heads that are left."""
        return self.q_proj.out_features // self.head_dim

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Return (outputs, weights or None) as nn.MultiheadAttention does.

        A mask of three axes has a row for each head that is left. CompressionError for masks of other
        shapes, and for `is_causal` without the mask that it hints at.
        """
        attended = attend(
            self.q_proj(query),
            self.k_proj(key),
            self.v_proj(value),
            head_dim=self.head_dim,
            scale=self.scale,
            batch_first=self.batch_first,
            more=(self.bias_k, self.bias_v, self.add_zero_attn),
            masks=(attn_mask, key_padding_mask, is_causal),
            weights=(need_weights, average_attn_weights),
            dropout=self.dropout if self.training else 0.0,
        )
        return self.out_proj(attended[0]), attended[1] if need_weights else None

    def extra_repr(self) -> str:
        """Tell the heads' channels, which no layer shows."""
        return f"head_dim={self.head_dim}, batch_first={self.batch_first}"


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
    """
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


torch.fx.wrap("attend")  # torch.fx takes it whole: it asks for the axes of its inputs


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
        found = _added(attention, q)
        found = found.view(batch, heads, queries, tokens) if found.ndim == 3 else found[None, None]
    if padding is not None:
        _check(padding, "key_padding_mask", (tokens,), (batch, tokens))
        padded = _added(padding, q).view(batch, 1, 1, tokens)
        found = padded if found is None else found + padded
    return None if found is None else F.pad(found, (0, k.shape[2] - tokens))


def _check(mask: Tensor, name: str, *shapes: tuple[int, ...]) -> None:
    if tuple(mask.shape) not in shapes:
        raise CompressionError(
            f"{name}: expected the shape {' or '.join(map(str, shapes))}, found {tuple(mask.shape)}"
        )


def _added(mask: Tensor, like: Tensor) -> Tensor:
    """Return a mask as numbers to add: -inf where a bool one is true."""
    if mask.dtype == torch.bool:
        return torch.zeros_like(mask, dtype=like.dtype).masked_fill_(mask, -torch.inf)
    if not mask.is_floating_point():
        raise CompressionError(f"a mask holds bools or floats, found {mask.dtype}")
    return mask.to(like.dtype)


def _weights(held: nn.MultiheadAttention) -> list[Any]:
    """Return the weights of queries, keys and values, as parameters of their own."""
    if not held._qkv_same_embed_dim:
        return [held.q_proj_weight, held.k_proj_weight, held.v_proj_weight]
    return _parts(held.in_proj_weight)


def _biases(held: nn.MultiheadAttention) -> list[Any]:
    return [None] * 3 if held.in_proj_bias is None else _parts(held.in_proj_bias)


def _parts(packed: Tensor) -> list[Any]:
    parts = packed.detach().chunk(3)
    return [nn.Parameter(part.clone(), packed.requires_grad) for part in parts]


def _linear(weight: Any, bias: Any) -> nn.Linear:
    outputs, inputs = weight.shape
    layer = nn.Linear(inputs, outputs, bias=bias is not None, device="meta")
    layer.weight, layer.bias = weight, bias
    return layer


def is_projection(module: nn.Module, attribute: str) -> bool:
    """Tell whether a tensor of nn.MultiheadAttention is one of the projections' once written out."""
    return isinstance(module, nn.MultiheadAttention) and "_proj" in attribute


def check_heads(name: str, attention: Attention) -> None:
    """Raise CompressionError where projections do not hold the same whole heads."""
    found = {
        attention.q_proj.out_features,
        attention.k_proj.out_features,
        attention.v_proj.out_features,
        attention.out_proj.in_features,
        *(t.shape[-1] for t in (attention.bias_k, attention.bias_v) if t is not None),
    }
    if len(found) > 1 or min(found) % attention.head_dim:
        raise CompressionError(
            f"{name}: expected one number of channels of whole heads, of {attention.head_dim} each, "
            f"found {sorted(found)}"
        )
