"""Networks of torch's attention whose heads can go, and those that keep them and say why."""

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.support.integer_nets import numbers
from tests.support.tricky_nets import Net

Given = tuple[nn.Module, tuple[Tensor, ...]]
WIDTH, HEADS = 8, 4
TOKENS = (2, 5, WIDTH)


def attentive(how: Callable[[Any, Tensor], Any], **options: Any) -> Given:
    """Return a network of attention and other layers, and tokens."""
    layers = {name: x for name, x in options.items() if isinstance(x, nn.Module)}
    options = {name: x for name, x in options.items() if name not in layers}
    mix = nn.MultiheadAttention(WIDTH, HEADS, **{"batch_first": True, **options})
    layers |= {"stem": nn.Linear(WIDTH, WIDTH), "norm": nn.LayerNorm(WIDTH), "mix": mix}
    return Net(how, **layers, head=nn.Linear(WIDTH, 3)), (numbers(*TOKENS),)


def itself(s: Any, x: Tensor, **options: Any) -> Tensor:
    y = s.norm(x)
    return cast(Tensor, s.head(x + s.mix(y, y, y, **options)[0]))


class Crossed(nn.Module):
    """Queries of one input, keys and values of others, of other widths."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.MultiheadAttention(WIDTH, HEADS, kdim=6, vdim=10)
        self.keys, self.head = nn.Linear(4, 6), nn.Linear(WIDTH, 3)

    def forward(self, x: Tensor, y: Tensor, z: Tensor) -> Tensor:
        return cast(Tensor, self.head(self.mix(x, self.keys(y), value=z, need_weights=False)[0]))


class Masked(nn.Module):
    """An encoder that is given masks, or makes them."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 16, batch_first=True, **options)
        self.body, self.head = nn.TransformerEncoder(layer, 2), nn.Linear(WIDTH, 3)

    def forward(self, x: Tensor, mask: Tensor, padding: Tensor) -> Tensor:
        return cast(Tensor, self.head(self.body(x, mask, src_key_padding_mask=padding)))


class Seq2Seq(nn.Module):
    """An encoder and a decoder, batch first or not."""

    def __init__(self, *, batch_first: bool) -> None:
        super().__init__()
        self.body = nn.Transformer(WIDTH, HEADS, 2, 1, 16, batch_first=batch_first)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return cast(Tensor, self.body(x, tgt=y))


class InTraining(nn.Module):
    """Mixes again in training."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.MultiheadAttention(WIDTH, HEADS, dropout=0.5)
        self.more, self.head = nn.MultiheadAttention(WIDTH, HEADS), nn.Linear(WIDTH, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.mix(x, x, x)[0]
        if self.training:
            x = x + self.more(x, x, x, need_weights=False)[0]
        return cast(Tensor, self.head(x))


def causal() -> Tensor:
    return torch.ones(5, 5, dtype=torch.bool).triu(1)


def layer(**options: Any) -> Given:
    options = {"d_model": WIDTH, "nhead": HEADS, "dim_feedforward": 16, **options}
    return nn.Sequential(nn.TransformerEncoderLayer(**options), nn.Linear(WIDTH, 3)), (
        numbers(*TOKENS),
    )


def shared() -> Given:
    """An encoder whose layers are one."""
    stack = nn.TransformerEncoder(layer()[0][0], 2)  # type: ignore[index]
    stack.layers[1] = stack.layers[0]
    return nn.Sequential(stack, nn.Linear(WIDTH, 3)), (numbers(*TOKENS),)


LOST: dict[str, Callable[[], Given]] = {
    "with itself": lambda: attentive(itself),
    "not batch first": lambda: attentive(itself, batch_first=False),
    "no bias": lambda: attentive(itself, bias=False),
    "appended": lambda: attentive(itself, add_bias_kv=True, add_zero_attn=True),
    "without weights": lambda: attentive(lambda s, x: itself(s, x, need_weights=False)),
    "weights that nobody reads": lambda: attentive(lambda s, x: (y := s.mix(x, x, x), s.head(y[0]))[1]),
    "a mask": lambda: attentive(lambda s, x: itself(s, x, attn_mask=causal(), is_causal=True)),
    "a mask of channels, which stay": lambda: attentive(
        lambda s, x: itself(s, x, key_padding_mask=s.five(x).amax(1)), five=nn.Linear(WIDTH, 5)
    ),
    "unbatched": lambda: (attentive(itself)[0], (numbers(5, WIDTH),)),
    "twice": lambda: attentive(lambda s, x: itself(s, s.mix(x, x, x)[0])),
    "a stream without norm": lambda: attentive(
        lambda s, x: s.head(s.mix(y := s.stem(x), y, y)[0] + y)
    ),
    "crossed": lambda: (Crossed(), (numbers(3, 2, WIDTH), numbers(5, 2, 4), numbers(5, 2, 10))),
    "layer": lambda: layer(),
    "layer, batch first": lambda: layer(batch_first=True, norm_first=True, activation="gelu"),
    "layer without bias": lambda: layer(bias=False, activation=nn.SiLU()),
    "layer of an own function": lambda: layer(activation=lambda y: y / y.sum(-1, keepdim=True)),
    "one layer twice": lambda: shared(),
    "nothing beside": lambda: attentive(
        lambda s, x: (s.head((y := s.mix(x, x, x, need_weights=False))[0]), y[1])
    ),
    "masked": lambda: (
        Masked(), (numbers(*TOKENS), causal() * -1e9, torch.zeros(2, 5))
    ),
    "encoder and decoder": lambda: (
        Seq2Seq(batch_first=True), (numbers(2, 5, WIDTH), numbers(2, 3, WIDTH))
    ),
    "sequence first": lambda: (
        Seq2Seq(batch_first=False), (numbers(5, 2, WIDTH), numbers(3, 2, WIDTH))
    ),
    "in training": lambda: (InTraining(), (numbers(*TOKENS),)),
}  # fmt: skip


def tied() -> Given:
    model, inputs = attentive(lambda s, x: itself(s, s.other(x, x, x)[0]))
    other = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)
    other.in_proj_weight = model.mix.in_proj_weight
    model.other = other
    return model, inputs


def hooked() -> Given:
    model, inputs = layer(batch_first=True)
    model[0].self_attn.register_forward_hook(lambda *_: None)
    return model, inputs


KEPT: dict[str, tuple[Callable[[], Given], str]] = {
    "weights": (
        lambda: attentive(lambda s, x: (s.head((y := s.mix(x, x, x))[0]), y[1])),
        "the weights of attention are read",
    ),
    "masks of heads": (
        lambda: attentive(lambda s, x: itself(s, x, attn_mask=causal().repeat(8, 1, 1))),
        "each head has a mask",
    ),
    "one head": (
        lambda: (
            Net(itself, mix=nn.MultiheadAttention(WIDTH, 1), norm=nn.LayerNorm(WIDTH),
            head=nn.Linear(WIDTH, 3)), (numbers(*TOKENS),),
        ),
        "attention has one head",
    ),
    "read by name": (
        lambda: attentive(
            lambda s, x: itself(s, x) + s.back(s.wide(x) + s.mix.in_proj_bias),
            wide=nn.Linear(WIDTH, 3 * WIDTH), back=nn.Linear(3 * WIDTH, 3),
        ),
        "the forward reads mix.in_proj_bias whole",
    ),
    "read by function": (
        lambda: attentive(lambda s, x: itself(s, x) + F.linear(x, s.mix.in_proj_weight).sum()),
        "the forward reads mix.in_proj_weight whole",
    ),
    "tied": (tied, "a weight of attention is tied to another"),
    "hooked": (hooked, "TransformerEncoderLayer is not known"),
}  # fmt: skip
