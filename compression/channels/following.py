"""Which channels of a network hang together: its graph is walked once, value by value."""

import operator
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, fx, nn

from compression.attention import is_projection
from compression.channels.attention import attention
from compression.channels.einsum import einsum
from compression.channels.layers import layer
from compression.channels.moves import move, moves
from compression.channels.pointwise import pointwise
from compression.channels.products import product
from compression.channels.shapes import shapes_of, without_data
from compression.channels.sizes import World
from compression.channels.transformers import transformer
from compression.channels.values import Found, Value
from compression.channels.walk import Channels, Place, Shapes, Walk, name_of
from compression.errors import UnsupportedTypeError
from compression.graph import number_nodes, place_of, trace
from compression.layers import same_memory

NAMED = ("values", "indices")
"""What torch calls the parts of a maximum along an axis."""


def follow(model: nn.Module, example: tuple[Any, ...]) -> Channels:
    """Return which channels of `model` hang together, for inputs like `example`.

    What only training reaches is followed in the graph of training. Raises UnsupportedTypeError for a
    network that torch.fx cannot trace, CompressionError for an example that it cannot take.
    """
    channels = Channels()
    if fx.Tracer().is_leaf_module(model, ""):  # one layer, which makes the outputs
        return channels
    empty = without_data(model)
    sizes, traced = _traced(empty, example)
    walks = [_follow(traced, shapes_of(traced, model, example, sizes=sizes), channels)]
    products, pairs = list(channels.products), list(channels.pairs)
    trained = _trained(empty, traced, sizes)
    if trained is not None:
        shapes = shapes_of(trained, model, example, training=True, sizes=sizes)
        walks.append(_follow(trained, shapes, channels))
    channels.products[:], channels.pairs[:] = products, pairs
    for walk in walks:
        _freeze_whole(walk, model)
    _settle(model, channels)
    return channels


def _traced(
    empty: nn.Module, example: tuple[Any, ...]
) -> tuple[tuple[int, ...] | None, fx.GraphModule]:
    """Return the sizes of images that a network's graph is of, None for any, and the graph."""
    try:
        return None, trace(empty, whole=True)
    except UnsupportedTypeError:
        if len(example) != 1 or not isinstance(example[0], Tensor):
            raise
        sizes = tuple(example[0].shape[1:])
        with suppress(UnsupportedTypeError):
            return sizes, trace(empty, whole=True, sizes=sizes)
        raise


def _trained(
    empty: nn.Module, traced: fx.GraphModule, sizes: tuple[int, ...] | None
) -> fx.GraphModule | None:
    """Return the graph of training, None where it is `traced`, that of evaluation."""
    try:
        trained = trace(empty, training=True, whole=True, sizes=sizes)
    except UnsupportedTypeError as error:
        reached = {name for name, _ in traced.named_parameters(remove_duplicate=False)}
        left = [name for name, _ in empty.named_parameters() if name not in reached]
        if not left:
            return None
        raise UnsupportedTypeError(
            f"{left[0]} is of a module that evaluation does not reach, and what training makes of its "
            f"inputs cannot be followed ({error}); delete the module before channels go"
        ) from error
    return None if _steps(trained) == _steps(traced) else trained


def _steps(traced: fx.GraphModule) -> list[tuple[Any, ...]]:
    nodes = traced.graph.nodes
    return [(n.op, n.target, [source.name for source in n.all_input_nodes]) for n in nodes]


def _follow(traced: fx.GraphModule, shapes: dict[fx.Node, Shapes], channels: Channels) -> Walk:
    walk = Walk(channels, dict(traced.named_modules()), shapes, number_nodes(traced.graph))
    for node in traced.graph.nodes:
        if node.op == "output":
            _freeze_counted(walk, node)
            reason = "they are the network's outputs"
            for value in walk.inputs(node):
                if value.labels is not None:
                    channels.labels.freeze(value.labels, reason)
        elif node not in walk.sizes.numbers and node in shapes:
            walk.values[node] = _checked(walk, _found(walk, node))
        elif node not in walk.sizes.numbers and not _asks(node):
            _freeze_counted(walk, node)
            _leave(walk, node)
    return walk


def _found(walk: Walk, node: fx.Node) -> Found:
    if node.op == "placeholder":
        return walk.unlabelled(node)
    if node.op == "get_attr":
        return _parameter(walk, node)
    module = walk.modules[str(node.target)] if node.op == "call_module" else None
    heads = attention(walk, node, module)
    if heads is not None:
        return heads
    shape = walk.shapes[node]
    if module is not None and isinstance(shape, tuple):
        found: Found | None = layer(walk, node, module, shape)
        found = transformer(walk, node, module, shape) if found is None else found
        if found is not None:
            return found
    if _takes_out(walk, node):
        return _item(walk, node)
    if moves(walk, node, module):
        return move(walk, node, module)
    _freeze_counted(walk, node)
    found = pointwise(walk, node, module)
    if found is None and module is None:
        found = product(walk, node) or einsum(walk, node)
    if found is None:
        _leave(walk, node)
        return walk.unlabelled(node)
    return found


def _leave(walk: Walk, node: fx.Node) -> None:
    """Let all channels stay that an unknown operator reads, and a layer as it is."""
    if node.op == "call_module":
        kind = type(walk.modules[str(node.target)]).__name__
        for name, parameter in walk.modules[str(node.target)].named_parameters():
            if parameter.ndim > 1:
                walk.channels.unknown[f"{node.target}.{name}"] = (
                    f"its channels stay: {kind} is not known"
                )
    else:
        kind = name_of(node.target)
    walk.freeze(node, f"{kind} is not known", *walk.inputs(node))


def _asks(node: fx.Node) -> bool:
    """Tell whether a node asks for something of a tensor that channels do not change."""
    return node.target is getattr and node.args[1] in ("device", "dtype", "layout", "is_cuda")


def _checked(walk: Walk, found: Found) -> Found:
    """Return what was found; a single channel has to stay, and is then of no axis."""
    if isinstance(found, tuple):
        return tuple(v for value in found for v in [_checked(walk, value)] if isinstance(v, Value))
    if found.axis is None or found.labels is None:
        return Value(found.shape)
    if len(found.labels) == 1:
        walk.labels.freeze(found.labels, "it is one channel")
    elif found.shape[found.axis] == len(found.labels) and bool(
        walk.labels.movable(found.labels).any()
    ):
        return found
    return Value(found.shape)


def _parameter(walk: Walk, node: fx.Node) -> Value:
    """Return a tensor of the network that its forward reads: a vector has channels of its own."""
    module, _, attribute = str(node.target).rpartition(".")
    place = Place(module, attribute)
    shape = walk.shape(node)
    if attribute.startswith("_tensor_constant"):  # the trace's own, of no layer
        return Value(shape)
    walk.parameters[node] = place
    axes = [axis for axis, size in enumerate(shape) if size > 1]
    if len(axes) != 1:
        return Value(shape)
    labels = walk.labels.fresh(shape[axes[0]])
    walk.own(node, module, attribute, axes[0], labels)
    return Value(shape, axes[0], labels, vanishes=True)


def _takes_out(walk: Walk, node: fx.Node) -> bool:
    if node.target is not operator.getitem and (
        node.target is not getattr or node.args[1] not in NAMED
    ):
        return False
    source = node.args[0]
    return isinstance(source, fx.Node) and isinstance(walk.values.get(source), tuple)


def _item(walk: Walk, node: fx.Node) -> Found:
    source, index = node.args
    values = walk.values[source]  # type: ignore[index]
    assert isinstance(values, tuple)
    place = index if node.target is operator.getitem else NAMED.index(index)  # type: ignore[arg-type]
    return values[place]  # type: ignore[index]


def _freeze_counted(walk: Walk, node: fx.Node) -> None:
    """Let channels stay whose number enters a computation."""
    numbers = [n for n in node.all_input_nodes if n in walk.sizes.numbers]
    for value in walk.sizes.asked(node):
        roots = [] if value.labels is None else walk.labels.movable(value.labels).unique().tolist()
        for few in ([r for r in roots if r][:1], [r for r in roots if r][1:]):  # one, all but one
            gone = torch.zeros(len(walk.labels), dtype=torch.bool)
            gone[few] = True

            def less(value: Value, gone: Tensor = gone) -> Value:
                return value.without(walk.labels, gone)

            if any(_number(walk, n, less) != _number(walk, n, lambda v: v) for n in numbers):
                walk.freeze(node, "the number of its channels is computed with", value)


def _number(walk: Walk, node: fx.Node, world: World) -> Any:
    try:
        return walk.sizes.number(node, world)
    except (ArithmeticError, ValueError, LookupError):  # as the division by a half of one channel
        return None


def _freeze_whole(walk: Walk, model: nn.Module) -> None:
    """Let channels stay of parameters that something reads whole."""
    owned: dict[object, list[tuple[int, Tensor]]] = {}
    for (place, axis), labels in walk.channels.owned.items():
        owned.setdefault(_memory(model, place), []).append((axis, labels))
    for node, place in walk.parameters.items():
        written = is_projection(model.get_submodule(place.module), place.attribute)
        if walk.value(node).labels is not None and not written:
            continue
        for axis, labels in owned.get(_memory(model, place), []):
            if written or not _owned_by_all(walk, node, axis):
                reason = f"the forward reads {node.target} whole at {place_of(node)}"
                walk.labels.freeze(labels, reason)


def _owned_by_all(walk: Walk, node: fx.Node, axis: int) -> bool:
    """Tell whether all that read a parameter combine it number by number along an axis."""
    for user in node.users:
        value = walk.values.get(user)
        if not isinstance(value, Value) or value.axis is None:
            return False
        if value.axis - len(value.shape) != axis - len(walk.shape(node)):
            return False
    return True


def _settle(model: nn.Module, channels: Channels) -> None:
    """Unite the channels of tensors that are tied under several names."""
    first: dict[tuple[object, int], tuple[Place, Tensor]] = {}
    for (place, axis), labels in channels.owned.items():
        other, twin = first.setdefault((_memory(model, place), axis), (place, labels))
        if other != place:
            channels.labels.unite(twin, labels, "tied to channels that stay")
            if any(
                is_projection(model.get_submodule(p.module), p.attribute) for p in (place, other)
            ):
                channels.labels.freeze(labels, "a weight of attention is tied to another")


def _memory(model: nn.Module, place: Place) -> object:
    return same_memory(getattr(model.get_submodule(place.module), place.attribute))
