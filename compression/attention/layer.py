"""Attention of any number of heads: nn.MultiheadAttention written out in linear layers."""

from typing import Any

import torch
from torch import Tensor, nn

from compression.attention.function import attend
from compression.errors import CompressionError

torch.fx.wrap("attend")  # torch.fx takes it whole: it asks for the axes of its inputs

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

    @property
    def in_proj_weight(self) -> Tensor | None:
        """The weights of queries, keys and values as one, for who reads it; None of other widths."""
        layers = (self.q_proj, self.k_proj, self.v_proj)
        if len({layer.in_features for layer in layers}) > 1:
            return None
        return torch.cat(tuple(layer.weight for layer in layers))

    @property
    def in_proj_bias(self) -> Tensor | None:
        """The biases of queries, keys and values as one, for who reads it."""
        biases = tuple(layer.bias for layer in (self.q_proj, self.k_proj, self.v_proj))
        return None if biases[0] is None else torch.cat(biases)

    @property
    def q_proj_weight(self) -> Tensor:
        """The weight of queries, for who reads it."""
        return self.q_proj.weight

    @property
    def k_proj_weight(self) -> Tensor:
        """The weight of keys, for who reads it."""
        return self.k_proj.weight

    @property
    def v_proj_weight(self) -> Tensor:
        """The weight of values, for who reads it."""
        return self.v_proj.weight

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
