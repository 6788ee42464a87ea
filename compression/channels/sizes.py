"""Numbers that a forward makes of sizes, computed again where channels are gone."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, fx

from compression.channels.values import Found, Value

World = Callable[[Value], Value]
"""What a value is where an operator is tried: as it is, or with channels gone."""


class Sizes:
    """The values and numbers of a graph, as they are or as they would be."""

    def __init__(self, values: Mapping[fx.Node, Found], numbers: set[fx.Node]) -> None:
        """Look at the values of nodes; `numbers` are nodes made of sizes."""
        self.values, self.numbers = values, numbers

    def argument(self, given: Any, world: World) -> Any:
        """Return an argument of a node, with labels for tensors and numbers for sizes."""

        def find(node: fx.Node) -> Any:
            if node in self.numbers:
                return self.number(node, world)
            found = self.values.get(node)
            if found is None:
                raise TypeError(f"{node} is no tensor")
            if isinstance(found, tuple):
                return tuple(world(value).full() for value in found)
            return world(found).full()

        return fx.node.map_arg(given, find)

    def number(self, node: fx.Node, world: World) -> Any:
        """Return the number that a node would make."""

        def find(source: fx.Node) -> Any:
            if source in self.numbers:
                return self.number(source, world)
            found = self.values[source]
            if isinstance(found, tuple):
                return tuple(_empty(world(value)) for value in found)
            return _empty(world(found))

        return call(node, fx.node.map_arg(node.args, find), fx.node.map_arg(node.kwargs, find))

    def asked(self, node: fx.Node) -> list[Value]:
        """Return the values whose sizes the numbers among a node's arguments come from."""
        found: list[Value] = []
        pending, seen = [n for n in node.all_input_nodes if n in self.numbers], set[fx.Node]()
        while pending:
            number = pending.pop()
            if number in seen:
                continue
            seen.add(number)
            pending += [n for n in number.all_input_nodes if n in self.numbers]
            values = [self.values[n] for n in number.all_input_nodes if n not in self.numbers]
            found += [value for value in values if isinstance(value, Value)]
        return found


def _empty(value: Value) -> Tensor:
    return torch.empty(value.shape, device="meta")


def call(node: fx.Node, args: Any, kwargs: Any) -> Any:
    """Apply a node's function or method."""
    if node.op == "call_method":
        return getattr(args[0], str(node.target))(*args[1:], **kwargs)
    if not callable(node.target):
        raise TypeError(f"{node.target} is no function")
    return node.target(*args, **kwargs)
