"""Operators that put numbers elsewhere: tried on labels, as they are and with channels gone."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, fx, nn

from compression.channels.labels import Labels
from compression.channels.sizes import World, call
from compression.channels.values import Found, Value, value_of, varying_axes
from compression.channels.walk import Walk, name_of

# fmt: off
MOVES = frozenset([
    "flatten", "unflatten", "view", "reshape", "squeeze", "unsqueeze", "permute", "transpose",
    "swapaxes", "swapdims", "movedim", "moveaxis", "t", "chunk", "split", "tensor_split", "unbind",
    "getitem", "cat", "concat", "concatenate", "stack", "narrow", "select", "expand", "expand_as",
    "view_as", "reshape_as", "repeat", "tile", "repeat_interleave", "roll", "flip", "pixel_shuffle",
    "pixel_unshuffle", "channel_shuffle", "split_with_sizes", "ravel", "broadcast_to", "hsplit",
    "getattr",
])
MOVING_LAYERS = (nn.Flatten, nn.Unflatten, nn.PixelShuffle, nn.PixelUnshuffle, nn.ChannelShuffle)
# fmt: on
PART = 0.4
"""Of all channels: those of the smaller of two sets that are taken away to try an operator."""
FEW = 8
"""Channels of which each is taken away alone, too."""
_REFUSALS = (RuntimeError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError)
Full = tuple[Tensor, ...]
"""A tensor of labels for each output."""


def moves(walk: Walk, node: fx.Node, module: Any = None) -> bool:
    """Tell whether a node puts numbers elsewhere, told by numbers: tensors as indices do not count."""
    if not isinstance(module, MOVING_LAYERS) and (module or name_of(node.target) not in MOVES):
        return False
    lists = isinstance(node.args[0], list | tuple) if node.args else False
    told: Any = [
        node.args[1:],
        {k: v for k, v in node.kwargs.items() if k not in ("input", "tensors")},
    ]
    nodes: list[fx.Node] = []
    fx.node.map_arg(told, lambda n: nodes.append(n))
    shapes_only = name_of(node.target) in ("expand_as", "view_as", "reshape_as")
    return lists or shapes_only or all(n in walk.sizes.numbers for n in nodes)


def move(walk: Walk, node: fx.Node, module: Any = None) -> Found:
    """Return what a node gives that moves the numbers of its inputs.

    The operator itself is applied to their labels. It must give the same with channels gone, when all
    its inputs and the sizes that it was told have shrunk; labels are united until it does, or all
    stay.
    """
    inputs = [v for v in (*walk.inputs(node), *walk.sizes.asked(node)) if v.labels is not None]
    if not inputs:
        return walk.unlabelled(node)
    try:
        outputs = _apply(walk, node, module, lambda value: value)
    except _REFUSALS:
        outputs = ()
    for ties in _ties(outputs, walk.labels):
        tried = walk.labels.copy()
        for first, second in ties:
            tried.unite(first.reshape(-1), second.reshape(-1), "it holds channels that stay")
        values = [value_of(full, tried) for full in outputs]
        if values and None not in values and _survives(walk, node, module, tried, inputs, values):
            walk.labels.become(tried)
            vanishes = all(value.vanishes for value in inputs)
            found = [replace(value, vanishes=vanishes) for value in values if value is not None]
            return tuple(found) if walk.gives_several(node) else found[0]
    walk.freeze(node, "channels cannot be told apart or sizes are fixed", *inputs)
    return walk.unlabelled(node)


def _apply(walk: Walk, node: fx.Node, module: Any, world: World) -> Full:
    args = walk.sizes.argument(node.args, world)
    kwargs = walk.sizes.argument(node.kwargs, world)
    given = module(*args, **kwargs) if module is not None else call(node, args, kwargs)
    return (given,) if isinstance(given, Tensor) else tuple(given)


def _ties(outputs: Full, labels: Labels) -> Iterator[list[tuple[Tensor, Tensor]]]:
    """Yield what may be united, the least first: nothing, like offsets of outputs, or of an axis."""
    yield []
    alike = len({full.shape for full in outputs}) == 1 and len(outputs) > 1
    same = [(full, outputs[0]) for full in outputs[1:]] if alike else []
    if same:
        yield same
    axes = [axis for full in outputs for axis in varying_axes(labels.movable(full))]
    for kept in dict.fromkeys(axes):
        along = [pair for full in outputs for pair in _across(full, kept)]
        yield along
        if same:
            yield along + same


def _across(full: Tensor, kept: int) -> list[tuple[Tensor, Tensor]]:
    """Return pairs that unite the labels at each place of the axis `kept`."""
    if kept >= full.ndim:
        return []
    rows = full.movedim(kept, 0).flatten(1)
    return [(rows, rows[:, :1].expand_as(rows))]


def _survives(
    walk: Walk,
    node: fx.Node,
    module: Any,
    labels: Labels,
    inputs: list[Value],
    outputs: list[Any],
) -> bool:
    """Tell whether the operator gives its outputs less some channels where its inputs lack them."""
    roots = torch.cat([labels.roots(v.labels) for v in inputs if v.labels is not None]).unique()
    movable = roots[labels.frozen()[roots] < 0]
    for gone in _trials(labels, movable, inputs):

        def less(value: Value, gone: Tensor = gone) -> Value:
            return value.without(labels, gone)

        try:
            found = _apply(walk, node, module, less)
        except _REFUSALS:
            return False
        wanted = [value.without(labels, gone).full() for value in outputs]
        if [full.shape for full in found] != [full.shape for full in wanted]:
            return False
        pairs = zip(found, wanted, strict=True)
        if not all(torch.equal(labels.roots(a), labels.roots(b)) for a, b in pairs):
            return False
    return True


def _trials(labels: Labels, movable: Tensor, inputs: list[Value]) -> Iterator[Tensor]:
    """Yield sets of channels (bool per label), until each that may go was gone once.

    That is some and the others, and each alone where few of them may be right by chance; an input
    keeps a channel, as it always does.
    """
    shuffled = movable[torch.randperm(len(movable), generator=torch.Generator().manual_seed(0))]
    some = round(PART * len(shuffled))
    left = torch.zeros(len(labels), dtype=torch.bool)
    left[movable] = True
    alone = shuffled[: len(shuffled) if len(shuffled) <= FEW else 1]
    pending = [shuffled[:some], shuffled[some:], *alone.split(1)]
    while pending:
        gone = torch.zeros(len(labels), dtype=torch.bool)
        gone[pending.pop(0)] = True
        for value in inputs:
            if not value.without(labels, gone).shape[value.channels[0]]:
                gone[labels.roots(value.channels[1][:1])] = False
        yield gone
        left &= ~gone
        if not pending:  # those that stayed so that an input keeps one
            pending, left = list(left.nonzero()), torch.zeros_like(left)
