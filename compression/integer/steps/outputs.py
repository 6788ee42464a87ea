"""Where the network's real outputs lie: one after the other in a row of numbers for each image."""

import math
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, fx

from compression.errors import UnsupportedTypeError
from compression.integer.steps.step import RealPlace
from compression.quantization.ends import returned, structured


class Outputs:
    """The tensors that `graph` returns, of the shapes of one image's values: `numbers` per image.

    Each lies channels last.
    """

    def __init__(self, graph: fx.Graph, shapes: dict[fx.Node, list[int]]) -> None:
        """Give each output its part of a row, in order; UnsupportedTypeError for too long a row."""
        self.graph, self.numbers = graph, 0
        self._shapes, self._starts = shapes, dict[fx.Node, int]()
        self._sides: dict[fx.Node, list[int]] = {}
        self._by_channel: dict[fx.Node, bool] = {}
        for _, node in returned(graph):
            if node not in self._starts:
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
        return structured(self.graph, {node: self._tensor(node, rows) for node in self._starts})

    @cached_property
    def _are_rows(self) -> bool:
        """Whether the network returns the rows as they are, as a classifier does."""
        nodes = dict.fromkeys(self._starts)
        alone = len(nodes) == 1 and structured(self.graph, nodes) is None
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
