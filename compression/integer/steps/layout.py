"""Where each value of a network lies in memory: what it needs around it, and until when."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from compression.errors import UnsupportedTypeError
from compression.integer.shapes import Move
from compression.integer.steps.geometry import Buffers, Geometry
from compression.integer.steps.step import Place
from compression.integer.steps.windows import transposed_border, window_of
from compression.quantization import modules as q


@dataclass(frozen=True, slots=True)
class Value:
    """Where a node's codes lie, and how."""

    geometry: Geometry
    memory: Tensor

    def place(self) -> Place:
        """Return where a step finds these codes, pixel by pixel."""
        geometry = self.geometry
        return Place(self.memory, geometry.all_offsets(), geometry.stride, geometry.zero)

    def codes(self, images: int) -> Tensor:
        """Return the codes (images, channels, rows, columns) that lie there now."""
        g, (down, right) = self.geometry, self.geometry.border
        lines = self.memory[: images * g.stride].view(images, g.height + 2 * down, -1, g.pixel)
        inside = lines[:, down : down + g.height, right : right + g.width, : g.channels]
        return inside.permute(0, 3, 1, 2).clone()


class Layout:
    """The values of a network in `buffers`; memory is used again unless `keep` is given.

    `shapes` and `moves` are those of one image's values; `pixel` gives the bytes of a pixel of so many
    channels. What moves numbers has no memory of its own where its source's serves; another has some
    where a layer reads it (`moved`).
    """

    def __init__(
        self,
        network: fx.GraphModule,
        shapes: dict[fx.Node, list[int]],
        moves: dict[fx.Node, Move],
        buffers: Buffers,
        *,
        keep: bool,
        pixel: Callable[[int], int] = int,
    ) -> None:
        """Find what flattens what, and who reads a value last."""
        self.network, self.shapes, self.keep = network, shapes, keep
        self.buffers, self.pixel = buffers, pixel
        self.moved: dict[fx.Node, Move] = {}
        self.values: dict[fx.Node, Value] = {}
        self._order = {node: i for i, node in enumerate(network.graph.nodes)}
        self._roots: dict[fx.Node, fx.Node] = {}
        self._last: dict[fx.Node, int] = {}
        self._readers: dict[fx.Node, list[fx.Node]] = {}
        self._moves: dict[fx.Node, Move] = {}
        for node in network.graph.nodes:
            if node in moves:
                self._move(node, moves[node])
            else:
                self._read(node)

    def module(self, node: fx.Node) -> nn.Module | None:
        """Return the layer that a node calls."""
        return self.network.get_submodule(str(node.target)) if node.op == "call_module" else None

    def computes(self, node: fx.Node) -> bool:
        """Tell whether a node is a layer that computes, and moves no numbers."""
        return node.op == "call_module" and node not in self._moves and self.root(node) is node

    def root(self, node: Any) -> fx.Node:
        """Return the node whose memory `node` names: itself, or what it flattens."""
        return self._roots.get(node, node)

    def value(self, node: Any) -> Value:
        """Return the value of a node that has been computed."""
        return self.values[self.root(node)]

    def sides(self, node: Any) -> list[int]:
        """Return the channels, rows and columns of the memory that `node` names."""
        return self.spatial(self.root(node))

    def spatial(self, node: fx.Node) -> list[int]:
        """Return the channels, rows and columns of a node's value."""
        shape = self.shapes[node][1:]
        match shape:
            case [channels]:
                return [channels, 1, 1]
            case [channels, length]:  # a signal is an image of one row
                return [channels, 1, length]
            case [_, _, _]:
                return shape
        raise UnsupportedTypeError(
            f"integer steps take images, signals or rows of numbers, found the shape {shape}"
        )

    def take(self, node: fx.Node, zero: int) -> Value:
        """Give memory to a node's value, whose code of 0 is `zero`."""
        channels, height, width = self.spatial(node)
        geometry = Geometry(channels, height, width, self._border(node), zero, self.pixel(channels))
        self.values[node] = Value(geometry, self.buffers.take(geometry))
        return self.values[node]

    def release(self, node: fx.Node) -> None:
        """Give back the memory of what `node` was the last to read."""
        for source in self._sources(node):
            if source in self.values and self._last[source] == self._order[node] and not self.keep:
                value = self.values[source]
                self.buffers.give_back(value.geometry, value.memory)

    def _sources(self, node: fx.Node) -> set[fx.Node]:
        """Return the values whose memory `node` reads."""
        if node in self._moves:
            return {self._moves[node].source}
        return {self.root(a) for a in node.all_input_nodes if a in self.shapes}

    def _read(self, node: fx.Node) -> None:
        """Note what a node that computes reads."""
        for source in self._sources(node):
            self._last[source] = self._order[node]
            self._readers.setdefault(source, []).append(node)
            if source in self._moves and node.op != "output":
                self.moved[source] = self._moves[source]

    def _move(self, node: fx.Node, move: Move) -> None:
        """Note where the numbers of a node lie that moves them: in the memory of its source or not."""
        root, places = self.root(move.source), move.places
        if self._is_reshaped(node, move.source, root) and move.is_view:
            self._roots[node] = root
        else:
            if root in self._moves:  # from where its own numbers come
                root, before = self._moves[root]
                places = before.flatten()[places]
            self._moves[node] = Move(root, places)
        self._last[root] = self._order[node]

    def _is_reshaped(self, node: fx.Node, source: fx.Node, root: fx.Node) -> bool:
        """Tell whether memory serves a value and its reshape: rows, or the same image."""
        before, after = self.shapes[source], self.shapes[node]
        flat = [1, torch.Size(before[1:]).numel()]
        if not all(2 <= len(shape) <= 4 for shape in (before, after)):
            return False
        return after == flat or self.spatial(source) == self.spatial(node) == self.spatial(root)

    def _border(self, node: fx.Node) -> tuple[int, int]:
        """Return the widest border that the readers of `node` need."""
        needed = [(0, 0), *(self._reach(reader, node) for reader in self._readers.get(node, []))]
        return max(rows for rows, _ in needed), max(columns for _, columns in needed)

    def _reach(self, reader: fx.Node, node: fx.Node) -> tuple[int, int]:
        layer, sides = self.module(reader), self.spatial(node)
        if isinstance(layer, q.QuantizedLayer) and layer.transposed:
            return transposed_border(layer, sides, self.spatial(reader)[1:])
        window = None if layer is None else window_of(layer, sides)
        flat = isinstance(layer, q.QuantizedLayer) and layer.linear  # it reads all of an image
        if window is None or flat or self.root(reader.args[0]) is not node:
            return 0, 0
        return window.border(sides[1], sides[2], self.spatial(reader)[1:])
