"""Torch's transformers, which torch.fx takes whole, in layers that it looks into."""

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from compression.attention import Attention
from compression.layers import alteration, replace_everywhere


class EncoderLayer(nn.Module):
    """What an nn.TransformerEncoderLayer computes in eval mode, by the same layers."""

    def __init__(self, held: nn.TransformerEncoderLayer) -> None:
        """Take over the layers of `held`."""
        super().__init__()
        self.norm_first, self.activation = held.norm_first, held.activation
        self.self_attn: Any = held.self_attn
        self.linear1, self.linear2 = held.linear1, held.linear2
        self.norm1, self.norm2 = held.norm1, held.norm2

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
            x = src + self._attend(self.norm1(src), *masks)
            return x + self._feed_forward(self.norm2(x))
        x = self.norm1(src + self._attend(src, *masks))
        outputs: Tensor = self.norm2(x + self._feed_forward(x))
        return outputs

    def _attend(
        self, x: Tensor, mask: Tensor | None, padding: Tensor | None, causal: bool
    ) -> Tensor:
        attended: Tensor = self.self_attn(
            x, x, x, attn_mask=mask, key_padding_mask=padding, is_causal=causal, need_weights=False
        )[0]
        return attended

    def _feed_forward(self, x: Tensor) -> Tensor:
        outputs: Tensor = self.linear2(self.activation(self.linear1(x)))
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


_WRITTEN: dict[type[nn.Module], Any] = {
    nn.MultiheadAttention: Attention,
    nn.TransformerEncoderLayer: EncoderLayer,
    nn.TransformerEncoder: Encoder,
}
_FUNCTIONS = (F.relu, F.gelu)


def write_out_transformers(network: nn.Module) -> nn.Module:
    """Replace, in place, attention and encoders of torch by what torch.fx looks into; return it.

    Those that hooks or patches alter stay, and so do encoders of other layers than torch's own.
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
    """Tell whether an encoder holds what its written form calls."""
    if isinstance(held, nn.TransformerEncoder):
        return all(type(layer) is EncoderLayer for layer in held.layers)
    if isinstance(held, nn.TransformerEncoderLayer):
        known = isinstance(held.activation, nn.Module) or held.activation in _FUNCTIONS
        return known and isinstance(held.self_attn, Attention)
    return True
