"""What a walk over a graph finds: values, and which tensors and attributes the labels own."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx, nn

from compression.channels.labels import FIXED, Labels
from compression.channels.sizes import Sizes
from compression.channels.values import Found, Value
from compression.graph import place_of

PACKED = {"in_proj_weight": 3, "in_proj_bias": 3}
"""Tensors of attention that hold those of several layers: of queries, keys and values."""
_HOMES = ("torch", "torchvision", "_operator", "operator", "math", "builtins")
Shapes = tuple[int, ...] | list[tuple[int, ...]]
"""The shape of what a node gives, or those of several tensors."""


class Place(NamedTuple):
    """An attribute of a module, by the module's dotted name."""

    module: str
    attribute: str


class Product(NamedTuple):
    """A layer's multiply-accumulates, which shrink with its outputs and its inputs of a group.

    `inputs` is None for a layer whose groups are of one channel; `shape` is that of what it reads.
    """

    module: str
    macs: int
    outputs: Tensor
    inputs: Tensor | None
    shape: tuple[int, ...]


class Pair(NamedTuple):
    """The multiply-accumulates of two values, which shrink with each of these sets of channels."""

    macs: int
    sides: tuple[Tensor, ...]


@dataclass(slots=True)
class Channels:
    """Labels, and what hangs on them.

    - `owned`: labels along an axis of a parameter or buffer.
    - `made`: those of `owned` that a layer makes; the others read or accompany them.
    - `counts`: attributes that hold a number of channels.
    - `products`: what is multiplied, layer by layer; `pairs`: of values with each other.
    - `fresh`: labels that a module makes, at each of its calls.
    - `unknown`: weights of layers of other kinds, and why they stay.
    """

    labels: Labels = field(default_factory=Labels)
    owned: dict[tuple[Place, int], Tensor] = field(default_factory=dict)
    made: set[tuple[Place, int]] = field(default_factory=set)
    counts: dict[Place, Tensor] = field(default_factory=dict)
    products: list[Product] = field(default_factory=list)
    pairs: list[Pair] = field(default_factory=list)
    fresh: dict[str, Tensor] = field(default_factory=dict)
    unknown: dict[str, str] = field(default_factory=dict)


class Walk:
    """One pass over a graph, node by node, of which the rules ask and which they tell."""

    def __init__(
        self,
        channels: Channels,
        modules: Mapping[str, nn.Module],
        shapes: Mapping[fx.Node, Shapes],
        numbers: set[fx.Node],
    ) -> None:
        """Walk over nodes of known shapes; `values` is filled on the way."""
        self.channels, self.labels = channels, channels.labels
        self.modules, self.shapes = modules, shapes
        self.values: dict[fx.Node, Found] = {}
        self.parameters: dict[fx.Node, Place] = {}
        self.sizes = Sizes(self.values, numbers)

    def shape(self, node: fx.Node) -> tuple[int, ...]:
        """Return the shape of the one tensor that a node gives."""
        shape = self.shapes[node]
        assert isinstance(shape, tuple)
        return shape

    def value(self, node: fx.Node) -> Value:
        """Return the one tensor that a node gave."""
        value = self.values[node]
        assert isinstance(value, Value)
        return value

    def unlabelled(self, node: fx.Node) -> Found:
        """Return what a node gives where no channel of it may go."""
        shapes = self.shapes[node]
        if isinstance(shapes, list):
            return tuple(map(Value, shapes))
        return Value(shapes)

    def gives_several(self, node: fx.Node) -> bool:
        """Tell whether a node gives several tensors."""
        return isinstance(self.shapes[node], list)

    def inputs(self, node: fx.Node) -> list[Value]:
        """Return the tensors that a node reads."""
        found: list[Value] = []
        for source in node.all_input_nodes:
            given = self.values.get(source, ())
            found += given if isinstance(given, tuple) else (given,)
        return found

    def first(self, node: fx.Node) -> Value:
        """Return the first tensor that a node reads."""
        return self.inputs(node)[0]

    def freeze(self, node: fx.Node, reason: str, *values: Value) -> None:
        """Let all channels of `values` stay; the reason gets the node's place."""
        for value in values:
            if value.labels is not None:
                self.labels.freeze(value.labels, f"{reason} at {place_of(node)}")

    def unite(self, node: fx.Node, first: Tensor, second: Tensor) -> None:
        """Let labels hang together because of a node."""
        reason = f"joined to channels that stay at {place_of(node)}"
        self.labels.unite(first, second, reason)

    def own(
        self,
        node: fx.Node,
        name: str,
        tensor: str,
        axis: int,
        labels: Tensor,
        *,
        makes: bool = False,
    ) -> None:
        """Note the labels along an axis of a module's tensor, if it has it."""
        held = getattr(self.modules[name], tensor, None)
        if held is None:
            return
        key = Place(name, tensor), axis
        if key in self.channels.owned:
            self.unite(node, self.channels.owned[key], labels)
        self.channels.owned[key] = labels
        if makes:
            self.channels.made.add(key)

    def own_parameter(self, node: fx.Node, source: fx.Node, value: Value) -> bool:
        """Note that a parameter that the forward reads has the channels of `value`, if it is one."""
        if source not in self.parameters or value.axis is None or value.labels is None:
            return False
        place = self.parameters[source]
        axis = value.axis - len(value.shape) + len(self.shape(source))
        self.own(node, place.module, place.attribute, axis, value.labels)
        return True

    def count(self, name: str, attribute: str, labels: Tensor) -> None:
        """Note that a module's attribute is the number of these channels."""
        if hasattr(self.modules[name], attribute):
            self.channels.counts[Place(name, attribute)] = labels

    def made_by(self, name: str, count: int) -> Tensor:
        """Return the labels that a module makes: the same at each of its calls."""
        if name not in self.channels.fresh:
            self.channels.fresh[name] = self.labels.fresh(count)
        return self.channels.fresh[name]


def fixed(count: int) -> Tensor:
    """Return labels of channels that stay."""
    return torch.full((count,), FIXED)


def name_of(target: Any) -> str:
    """Return the name of a function or method; one of your own is named otherwise than torch's."""
    if isinstance(target, str):
        return target.strip("_")
    name = str(getattr(target, "__name__", target)).strip("_")
    home = str(getattr(target, "__module__", None) or "torch").partition(".")[0]
    return name if home in _HOMES else f"{home}.{name}"
