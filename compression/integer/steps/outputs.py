"""Where the network's real outputs lie: one after the other in a row of numbers for each image."""

import math
from functools import cached_property
from itertools import chain
from typing import Any

import torch
from torch import Tensor, fx, nn

from compression.errors import UnsupportedTypeError
from compression.integer.steps.step import RealPlace
from compression.quantization import modules as q
from compression.quantization.ends import returned, structured


class Outputs:
    """The real values that steps write, of the shapes of one image's: `numbers` per image.

    Each lies channels last. They are what the network returns, or what its tail makes outputs of:
    sums and interpolations, which torch computes.
    """

    def __init__(self, network: fx.GraphModule, shapes: dict[fx.Node, list[int]]) -> None:
        """Give each value its part of a row, in order; UnsupportedTypeError for too long a row."""
        self.graph, self.numbers = network.graph, 0
        self._shapes, self._starts = shapes, dict[fx.Node, int]()
        self._sides: dict[fx.Node, list[int]] = {}
        self._by_channel: dict[fx.Node, bool] = {}
        self._tail = _tail(network)
        read = (a for node in self._tail for a in node.args if isinstance(a, fx.Node))
        for node in chain((node for _, node in returned(self.graph)), read):
            if node in shapes and node not in self._tail and node not in self._starts:
                self._starts[node] = self.numbers
                self.numbers += torch.Size(shapes[node]).numel()
        if self.numbers >= 2**31:
            raise UnsupportedTypeError(
                f"an image's outputs hold {self.numbers} numbers, beyond what integer steps address"
            )

    def place(self, node: fx.Node, sides: list[int], *, by_channel: bool) -> RealPlace:
        """Return where a step writes an output of these channels and sides.

        The network gives it channel by channel, or pixel by pixel.
        """
        channels, *pixels_of = self._sides[node] = sides
        self._by_channel[node] = by_channel
        pixels = torch.arange(math.prod(pixels_of), dtype=torch.int32) * channels
        return RealPlace(pixels + self._starts[node], self.numbers)

    def structured(self, rows: Tensor) -> Any:
        """Return the outputs in the network's structure, of rows (images, numbers)."""
        if self._are_rows:
            return rows
        values = {node: self._tensor(node, rows) for node in self._starts}
        for node, layer in self._tail.items():
            sides = self._shapes[node][2:]
            values[node] = layer(*(self._given(a, values, sides) for a in node.args))
        return structured(self.graph, values)

    def _given(self, argument: Any, values: dict[fx.Node, Tensor], sides: list[int]) -> Any:
        """Return a value that a tail's layer reads, and `sides` for a size that it is given."""
        is_value = isinstance(argument, fx.Node) and argument in values
        return values[argument] if is_value else sides

    @cached_property
    def _are_rows(self) -> bool:
        """Whether the network returns the rows as they are, as a classifier does."""
        nodes = dict.fromkeys(self._starts)
        alone = len(nodes) == 1 and not self._tail and structured(self.graph, nodes) is None
        return alone and all(
            self._shapes[node][1:] == [self.numbers] and math.prod(self._sides[node][1:]) == 1
            for node in nodes
        )

    def _tensor(self, node: fx.Node, rows: Tensor) -> Tensor:
        channels, *sides = self._sides[node]
        start = self._starts[node]
        own = rows[:, start : start + channels * math.prod(sides)]
        images = own.unflatten(1, (*sides, channels))
        images = images.movedim(-1, 1) if self._by_channel[node] else images
        return images.reshape(len(rows), *self._shapes[node][1:])


def _tail(network: fx.GraphModule) -> dict[fx.Node, nn.Module]:
    """Return the nodes of a network's tail, in order, and the layers that they call."""
    calls = [node for node in network.graph.nodes if node.op == "call_module"]
    layers = {node: network.get_submodule(str(node.target)) for node in calls}
    return {node: layer for node, layer in layers.items() if isinstance(layer, q.REAL)}
