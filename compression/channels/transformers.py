"""Torch's transformers, which torch.fx takes whole: heads and hidden channels of their layers go."""

from collections.abc import Iterator
from typing import Any

from torch import Tensor, fx, nn

from compression.attention import Attention
from compression.channels.attention import freeze_masked, heads, own_linear, tokens
from compression.channels.pointwise import ELEMENTWISE, UNARY_LAYERS
from compression.channels.values import Value
from compression.channels.walk import Product, Walk, fixed, name_of
from compression.layers import alteration

INPUTS: dict[type[nn.Module], tuple[str, ...]] = {
    nn.TransformerEncoderLayer: ("src",),
    nn.TransformerDecoderLayer: ("tgt", "memory"),
    nn.TransformerEncoder: ("src",),
    nn.TransformerDecoder: ("tgt", "memory"),
    nn.Transformer: ("src", "tgt"),
}
"""What each reads first; the rest of its arguments are masks."""
LAYERS = (nn.TransformerEncoderLayer, nn.TransformerDecoderLayer)
_STREAM = "LayerNorm's mean and variance count its channels"
Layer = tuple[Any, list[Value]]
"""A layer, and what it reads."""


def transformer(walk: Walk, node: fx.Node, module: Any, shape: tuple[int, ...]) -> Value | None:
    """Return what a transformer of torch gives, or a layer of one; None for another module.

    Its stream stays. None, too, where it holds layers that are not torch's own, or altered ones.
    """
    names = INPUTS.get(type(module))
    if names is None:
        return None
    given = dict(zip(names, node.args, strict=False)) | node.kwargs
    inputs = [walk.values.get(given.get(name)) for name in names]  # type: ignore[arg-type]
    streams = [value for value in inputs if isinstance(value, Value)]
    layers = list(_layers(module, [Value(value.shape) for value in streams]))
    if len(streams) < len(names) or None in layers or any(map(_altered, module.modules())):
        return None
    walk.freeze(node, _STREAM, *streams)
    masks = [x for x in node.all_input_nodes if x not in [given[name] for name in names]]
    for layer, reads in filter(None, layers):
        _attentions(walk, node, layer, reads, masks)
        _feed_forward(walk, node, layer, reads[0])
    return Value(shape)


def _altered(module: nn.Module) -> bool:
    return type(module) is not Attention and alteration(module) is not None


def _layers(module: Any, reads: list[Value]) -> Iterator[Layer | None]:
    """Yield the layers of a transformer; None for what is not torch's own."""
    kind = type(module)
    if kind in LAYERS:
        whole = type(module.linear1) is nn.Linear is type(module.linear2)
        yield (module, reads) if whole and all(map(_known, _held(module))) else None
    elif kind is nn.Transformer and len(reads) == 2:
        yield from _layers(module.encoder, reads[:1])
        yield from _layers(module.decoder, reads[::-1])
    elif kind in (nn.TransformerEncoder, nn.TransformerDecoder):
        for layer in module.layers:
            yield from _layers(layer, reads)
    else:
        yield None


def _name(walk: Walk, module: nn.Module) -> str:
    """Return the dotted name of a module, the first of those of a shared one."""
    return next(name for name, other in walk.modules.items() if other is module)


def _held(layer: Any) -> list[nn.Module]:
    return [layer.self_attn, *([layer.multihead_attn] if hasattr(layer, "multihead_attn") else [])]


def _known(held: nn.Module) -> bool:
    return type(held) in (nn.MultiheadAttention, Attention)


def _attentions(
    walk: Walk, node: fx.Node, layer: Any, reads: list[Value], masks: list[fx.Node]
) -> None:
    """Note what hangs on the heads of a layer: of attention to itself, and to what another made."""
    sources = {"self_attn": reads[0], "multihead_attn": reads[-1]}
    held: Any
    for child, held in zip(sources, _held(layer), strict=False):
        query, key, name = reads[0], sources[child], _name(walk, held)
        walk.freeze(node, _STREAM, heads(walk, node, name, held, [query, key, key]))
        freeze_masked(walk, node, masks, walk.made_by(name, held.num_heads))


def _feed_forward(walk: Walk, node: fx.Node, layer: Any, stream: Value) -> None:
    """Let hidden channels go, of a function that keeps each to itself."""
    width, shape = stream.shape[-1], stream.shape
    first, second = _name(walk, layer.linear1), _name(walk, layer.linear2)
    hidden = walk.made_by(first, layer.linear1.out_features)
    outputs = walk.made_by(second, width)
    for name, read, given in ((first, fixed(width), hidden), (second, hidden, outputs)):
        own_linear(walk, node, name, read, given)
        walk.count(name, "in_features", read)
        walk.count(name, "out_features", given)
        macs = tokens(shape) * len(read) * len(given)
        product = Product(name, macs, given, read, (*shape[:-1], len(read)))
        walk.channels.products.append(product)
    walk.freeze(node, _STREAM, _of(outputs, shape))
    if type(layer.activation) not in UNARY_LAYERS and name_of(layer.activation) not in ELEMENTWISE:
        walk.freeze(node, f"{name_of(layer.activation)} is not known", _of(hidden, shape))


def _of(labels: Tensor, shape: tuple[int, ...]) -> Value:
    return Value((*shape[:-1], len(labels)), len(shape) - 1, labels)
