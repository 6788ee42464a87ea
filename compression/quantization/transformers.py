"""Torch's transformers, which torch.fx takes whole, in layers that it looks into."""

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from compression.attention import Attention
from compression.layers import alteration, replace_everywhere


class _Layer(nn.Module):
    """What layers of encoders and decoders have: attention to themselves, and two linear layers."""

    def __init__(self, held: nn.TransformerEncoderLayer | nn.TransformerDecoderLayer) -> None:
        """Take over the layers of `held`."""
        super().__init__()
        self.norm_first, self.activation = held.norm_first, held.activation
        self.self_attn: Any = held.self_attn
        self.linear1, self.linear2 = held.linear1, held.linear2
        self.norm1, self.norm2 = held.norm1, held.norm2

    def _feed_forward(self, x: Tensor) -> Tensor:
        outputs: Tensor = self.linear2(self.activation(self.linear1(x)))
        return outputs


def _attend(
    attention: Any, x: Tensor, to: Tensor, mask: Tensor | None, padding: Tensor | None, causal: bool
) -> Tensor:
    attended: Tensor = attention(
        x, to, to, attn_mask=mask, key_padding_mask=padding, is_causal=causal, need_weights=False
    )[0]
    return attended


class EncoderLayer(_Layer):
    """What an nn.TransformerEncoderLayer computes in eval mode, by the same layers."""

    def forward(
        self,
        src: Tensor,
        src_mask: Tensor | None = None,
        src_key_padding_mask: Tensor | None = None,
        is_causal: bool = False,
    ) -> Tensor:
        """Return the encoded tokens."""
        masks = (src_mask, src_key_padding_mask, is_causal)
        if self.norm_first:
            normal = self.norm1(src)
            x = src + _attend(self.self_attn, normal, normal, *masks)
            return x + self._feed_forward(self.norm2(x))
        x = self.norm1(src + _attend(self.self_attn, src, src, *masks))
        outputs: Tensor = self.norm2(x + self._feed_forward(x))
        return outputs


class DecoderLayer(_Layer):
    """What an nn.TransformerDecoderLayer computes in eval mode, by the same layers."""

    def __init__(self, held: nn.TransformerDecoderLayer) -> None:
        """Take over the layers of `held`."""
        super().__init__(held)
        self.multihead_attn: Any = held.multihead_attn
        self.norm3 = held.norm3

    def forward(
        self,
        tgt: Tensor,
        memory: Tensor,
        tgt_mask: Tensor | None = None,
        memory_mask: Tensor | None = None,
        tgt_key_padding_mask: Tensor | None = None,
        memory_key_padding_mask: Tensor | None = None,
        tgt_is_causal: bool = False,
        memory_is_causal: bool = False,
    ) -> Tensor:
        """Return the decoded tokens."""
        own = (tgt_mask, tgt_key_padding_mask, tgt_is_causal)
        others = (memory_mask, memory_key_padding_mask, memory_is_causal)
        if self.norm_first:
            normal = self.norm1(tgt)
            x = tgt + _attend(self.self_attn, normal, normal, *own)
            x = x + _attend(self.multihead_attn, self.norm2(x), memory, *others)
            return x + self._feed_forward(self.norm3(x))
        x = self.norm1(tgt + _attend(self.self_attn, tgt, tgt, *own))
        x = self.norm2(x + _attend(self.multihead_attn, x, memory, *others))
        outputs: Tensor = self.norm3(x + self._feed_forward(x))
        return outputs


class Encoder(nn.Module):
    """What an nn.TransformerEncoder computes in eval mode."""

    def __init__(self, held: nn.TransformerEncoder) -> None:
        """Take over the layers of `held`."""
        super().__init__()
        self.layers, self.norm = held.layers, held.norm

    def forward(
        self,
        src: Tensor,
        mask: Tensor | None = None,
        src_key_padding_mask: Tensor | None = None,
        is_causal: bool | None = None,
    ) -> Tensor:
        """Return the encoded tokens."""
        for layer in self.layers:
            src = layer(src, mask, src_key_padding_mask, bool(is_causal))
        return src if self.norm is None else self.norm(src)


class Decoder(nn.Module):
    """What an nn.TransformerDecoder computes in eval mode."""

    def __init__(self, held: nn.TransformerDecoder) -> None:
        """Take over the layers of `held`."""
        super().__init__()
        self.layers, self.norm = held.layers, held.norm

    def forward(
        self,
        tgt: Tensor,
        memory: Tensor,
        tgt_mask: Tensor | None = None,
        memory_mask: Tensor | None = None,
        tgt_key_padding_mask: Tensor | None = None,
        memory_key_padding_mask: Tensor | None = None,
        tgt_is_causal: bool | None = None,
        memory_is_causal: bool = False,
    ) -> Tensor:
        """Return the decoded tokens."""
        masks = (tgt_mask, memory_mask, tgt_key_padding_mask, memory_key_padding_mask)
        for layer in self.layers:
            tgt = layer(tgt, memory, *masks, bool(tgt_is_causal), memory_is_causal)
        return tgt if self.norm is None else self.norm(tgt)


class Both(nn.Module):
    """What an nn.Transformer computes in eval mode."""

    def __init__(self, held: nn.Transformer) -> None:
        """Take over the encoder and the decoder of `held`."""
        super().__init__()
        self.encoder, self.decoder = held.encoder, held.decoder

    def forward(
        self,
        src: Tensor,
        tgt: Tensor,
        src_mask: Tensor | None = None,
        tgt_mask: Tensor | None = None,
        memory_mask: Tensor | None = None,
        src_key_padding_mask: Tensor | None = None,
        tgt_key_padding_mask: Tensor | None = None,
        memory_key_padding_mask: Tensor | None = None,
        src_is_causal: bool | None = None,
        tgt_is_causal: bool | None = None,
        memory_is_causal: bool = False,
    ) -> Tensor:
        """Return the decoded tokens."""
        memory = self.encoder(src, src_mask, src_key_padding_mask, src_is_causal)
        masks = (tgt_mask, memory_mask, tgt_key_padding_mask, memory_key_padding_mask)
        outputs: Tensor = self.decoder(tgt, memory, *masks, tgt_is_causal, memory_is_causal)
        return outputs


_WRITTEN: dict[type[nn.Module], Any] = {
    nn.MultiheadAttention: Attention,
    nn.TransformerEncoderLayer: EncoderLayer,
    nn.TransformerDecoderLayer: DecoderLayer,
    nn.TransformerEncoder: Encoder,
    nn.TransformerDecoder: Decoder,
    nn.Transformer: Both,
}
_PARTS = {nn.TransformerEncoder: EncoderLayer, nn.TransformerDecoder: DecoderLayer}
_FUNCTIONS = (F.relu, F.gelu)


def write_out_transformers(network: nn.Module) -> nn.Module:
    """Replace, in place, torch's attention and transformers by what torch.fx looks into; return it.

    Those that hooks or patches alter stay, and so do encoders and decoders of other layers than
    torch's own.
    """
    for kind, written in _WRITTEN.items():
        for held in [m for m in network.modules() if type(m) is kind]:
            if alteration(held) is not None or not _is_whole(held):
                continue
            made = written(held)
            made.train(held.training)
            if held is network:
                return made  # type: ignore[no-any-return]
            replace_everywhere(network, held, made)
    return network


def _is_whole(held: Any) -> bool:
    """Tell whether an encoder or a decoder holds what its written form calls."""
    match held:
        case nn.TransformerEncoder() | nn.TransformerDecoder():
            return all(type(layer) is _PARTS[type(held)] for layer in held.layers)
        case nn.TransformerEncoderLayer() | nn.TransformerDecoderLayer():
            known = isinstance(held.activation, nn.Module) or held.activation in _FUNCTIONS
            attentions = [held.self_attn, getattr(held, "multihead_attn", held.self_attn)]
            return known and all(isinstance(part, Attention) for part in attentions)
        case nn.Transformer():
            return type(held.encoder) is Encoder and type(held.decoder) is Decoder
    return True
