"""How each layer of a network finds what it reads: in its source's memory, or put elsewhere first."""

import math
from typing import Any

import torch
from torch import Tensor, fx, nn

from compression.integer.shapes import Move, is_move
from compression.integer.steps.axes import (
    EITHER,
    FIRST,
    LAST,
    axis_read,
    by_pixel,
    is_by_channel,
    spatial,
)
from compression.integer.steps.windows import transposed_border, window_of
from compression.quantization import modules as q

NO_BORDER = 0, 0, 0


class Readings:
    """Who reads which values of a network, how, and until when.

    `shapes` and `moves` are those of one image's values. What moves numbers has no memory of its own
    where its readers find each pixel's codes side by side in its source's; another has some (`moved`).
    """

    def __init__(
        self, network: fx.GraphModule, shapes: dict[fx.Node, list[int]], moves: dict[fx.Node, Move]
    ) -> None:
        """Find where the numbers of each value come from, and who reads a value last."""
        self.network, self.shapes = network, shapes
        self.moved: dict[fx.Node, int] = {}
        """What has memory though it moves numbers only, and the axis of its channels."""
        self.axes: dict[fx.Node, int] = {}
        """The channels' axis of what each layer reads."""
        self.order = {node: i for i, node in enumerate(network.graph.nodes)}
        self.moves: dict[fx.Node, Move] = {}
        """Of each node that moves numbers: what computes them, and their places in it."""
        self.last: dict[fx.Node, int] = {}
        """The place in the graph of what reads a value last."""
        self.borders: dict[fx.Node, tuple[int, int, int]] = {}
        """The widest border that the readers of a value need: frames, rows, columns."""
        self._starts: dict[tuple[fx.Node, fx.Node, int], tuple[Tensor, Tensor] | None] = {}
        for node in network.graph.nodes:
            if node in moves:
                root, places = moves[node].source, moves[node].places.flatten()
                if root in self.moves:  # from where its own numbers come
                    root, before = self.moves[root]
                    places = before[places]
                self.moves[node] = Move(root, places)
            elif self.computes(node):
                self._read(node)

    def module(self, node: fx.Node) -> nn.Module | None:
        """Return the layer that a node calls."""
        return self.network.get_submodule(str(node.target)) if node.op == "call_module" else None

    def computes(self, node: fx.Node) -> bool:
        """Tell whether a node is a layer that computes codes or gives real numbers of them."""
        real = isinstance(self.module(node), q.REAL)
        return node.op == "call_module" and not real and not is_move(self.network, node)

    def misread(self, node: fx.Node) -> fx.Node | None:
        """Return what a layer cannot find where it lies, None where it finds all that it reads."""
        return next(
            (source for source in self.operands(node) if not self._finds(node, source)), None
        )

    def is_whole(self, node: fx.Node) -> bool:
        """Tell whether a value is what a layer computed, or a reshape of all of it."""
        if node in self.moved or node not in self.moves:
            return node not in self.moved
        root, places = self.moves[node]
        return self.moves[node].is_view and places.numel() == math.prod(self.shapes[root])

    def is_flat(self, source: Any) -> bool:
        """Tell whether a linear layer reads a whole image as one row, channel by channel."""
        root = self._root(source)
        rows = len(self.shapes[source]) == 2 and self.axis(root) == FIRST
        return rows and root is not source and self.is_whole(source)

    def reads_by_channel(self, node: fx.Node) -> bool:
        """Tell whether the numbers that a layer reads come channel by channel, not pixel by pixel."""
        source: Any = node.args[0]
        if not (self.is_whole(source) and self.is_read_whole(node, source)):
            return is_by_channel(self.shapes[source], self.axis_of(node, source))
        root = self._root(source)
        return is_by_channel(self.shapes[root], self.axis(root))

    def axis(self, node: fx.Node) -> int:
        """Return the channels' axis of what a layer gives."""
        rank = len(self.shapes[node])
        if rank not in EITHER:
            return LAST
        if isinstance(self.module(node), q.RepeatedCodes):
            return self._axis_wanted(node)
        if node.op == "placeholder":
            return FIRST if rank > 3 else self._axis_wanted(node)
        return self.axes[node]

    def spatial(self, node: fx.Node) -> list[int]:
        """Return the channels, frames, rows and columns of what a layer gives."""
        return spatial(self.shapes[node], self.axis(node))

    def operands(self, node: fx.Node) -> list[fx.Node]:
        """Return the values that a node reads, one twice where it reads it twice; no sizes."""
        if isinstance(self.module(node), q.RepeatedCodes):  # of its input no more than its length
            return []
        return [a for a in node.args if isinstance(a, fx.Node) and a in self.shapes]

    def _read(self, node: fx.Node) -> None:
        """Note what a layer reads, and give memory to what it does not find in its source's."""
        layer: Any = self.module(node)
        sources = self.operands(node)
        self.axes[node] = self._axis_chosen(layer, sources)
        for source in sources:
            if source in self.moves and source not in self.moved and not self._finds(node, source):
                self.moved[source] = self.axis_of(node, source)
                root = self._root(source)
                self.last[root] = max(self.last.get(root, 0), self.order[source])
            owner = self.owner(source)
            self.last[owner] = max(self.last.get(owner, 0), self.order[node])
            if self._slides(node, source):
                self._widen(owner, self._reach(node, source))

    def _widen(self, node: fx.Node, border: tuple[int, int, int]) -> None:
        """Note that a value needs a border of so many frames, rows and columns."""
        back, down, right = map(max, self.borders.get(node, NO_BORDER), border)
        self.borders[node] = back, down, right

    def _finds(self, node: fx.Node, source: fx.Node) -> bool:
        """Tell whether a layer finds the codes that it reads where they lie."""
        if self.is_read_whole(node, source):
            return True
        axis = self.axis_of(node, source)
        found = self.starts(source, self.owner(source), axis)
        return found is not None and not self._slides(node, source)

    def _axis_chosen(self, layer: nn.Module, sources: list[fx.Node]) -> int:
        """Return the channels' axis of what a layer reads: its own, or that of most of it."""
        ranks = [len(self.shapes[source]) for source in sources]
        fixed = [axis_read(layer, rank) for rank in ranks]
        if None not in fixed:
            return fixed[0] if fixed else LAST  # type: ignore[return-value]
        made = [self.axis(source) for source in sources if source not in self.moves]
        # A single channel lies beside itself either way: of moves, the widest pixels.
        wide = sorted((FIRST, LAST), key=lambda a: -spatial(self.shapes[sources[0]], a)[0])
        for axis in (*made, *wide):
            if all(self.starts(s, self.owner(s), axis) is not None for s in sources):
                return axis
        return made[0] if made else LAST

    def _axis_wanted(self, node: fx.Node) -> int:
        """Return the channels' axis of an input, or of a constant, as layers read it."""
        nodes, own = [node], len(self.shapes[node])
        for reader in nodes:  # and those that are appended
            for user in reader.users:
                layer, rank = self.module(user), len(self.shapes.get(reader, []))
                if layer is not None and self.computes(user) and rank == own and user not in nodes:
                    axis = axis_read(layer, rank)
                    if axis is not None:
                        return axis
                    nodes.append(user)
        return FIRST

    def owner(self, source: fx.Node) -> fx.Node:
        """Return whose memory holds the codes of a source."""
        return source if source in self.moved else self._root(source)

    def _root(self, node: fx.Node) -> fx.Node:
        """Return the layer that computes the numbers of a node."""
        return self.moves[node].source if node in self.moves else node

    def axis_of(self, node: fx.Node, source: fx.Node) -> int:
        """Return the channels' axis of one of the values that a layer reads."""
        return self.axes[node] if len(self.shapes[source]) in EITHER else LAST

    def _slides(self, node: fx.Node, source: fx.Node) -> bool:
        """Tell whether a layer's window slides over what it reads here."""
        layer: Any = self.module(node)
        if isinstance(layer, q.QuantizedLayer):
            return source is node.args[0] and not layer.linear
        return isinstance(layer, q.OnCodes | q.QuantizedMean | q.QuantizedInterpolation)

    def is_read_whole(self, node: fx.Node, source: fx.Node) -> bool:
        """Tell whether a layer reads the memory of a source as it is."""
        owner, layer = self.owner(source), self.module(node)
        linear = isinstance(layer, q.QuantizedLayer) and layer.linear
        if linear and source is node.args[0] and self.is_flat(source):
            return True
        if isinstance(layer, q.Dequantize) and self.is_whole(source):
            return self.heads(owner) == 1
        axis = self.axis_of(node, source)
        held = self.moved[owner] if owner in self.moved else self.axis(owner)
        sides = spatial(self.shapes[source], axis)
        if self.heads(owner) > 1 or sides != spatial(self.shapes[owner], held):
            return False
        found = self.starts(source, owner, axis)
        if found is None:
            return False
        pixels, starts = found
        return not starts.any() and pixels.equal(torch.arange(len(pixels)))

    def _reach(self, node: fx.Node, source: fx.Node) -> tuple[int, int, int]:
        """Return how far the windows of a layer reach beyond what it reads."""
        given = spatial(self.shapes[source], self.axis_of(node, source))
        sides, outputs = given[1:], self.spatial(node)[1:]
        layer: Any = self.module(node)
        if isinstance(layer, q.QuantizedLayer) and layer.transposed:
            return transposed_border(layer, sides, outputs)
        window = window_of(layer, given)
        return NO_BORDER if window is None else window.border(sides, outputs)

    def heads(self, node: fx.Node) -> int:
        """Return how many heads of attention lie side by side in a pixel: as what reads them does."""
        shape = self.shapes[node]
        attends = isinstance(self.module(node), q.QuantizedAttention) and node not in self.moved
        return shape[-3] if attends and len(shape) > 3 else 1

    def cells(self, node: fx.Node) -> tuple[Tensor, Tensor]:
        """Return the pixel of the memory of `node`, and the channel in it, of each of its numbers."""
        axis = self.moved[node] if node in self.moved else self.axis(node)
        channels, *sides = spatial(self.shapes[node], axis)
        pixels = math.prod(sides)
        places, heads = torch.arange(channels * pixels), self.heads(node)
        if is_by_channel(self.shapes[node], axis):
            return places % pixels, places // pixels
        if heads == 1:
            return places // channels, places % channels
        tokens = self.shapes[node][-2]
        token, head = places // channels % tokens, places // (channels * tokens) % heads
        group = places // (channels * tokens * heads)
        return group * tokens + token, head * channels + places % channels

    def starts(self, source: fx.Node, owner: fx.Node, axis: int) -> tuple[Tensor, Tensor] | None:
        """Return the pixel of `owner` and the channel in it where each pixel of `source` begins.

        None where a pixel's codes do not lie side by side there.
        """
        axis = axis if len(self.shapes[source]) in EITHER else LAST
        key = (source, owner, axis)
        if key not in self._starts:
            self._starts[key] = self._find_starts(*key)
        return self._starts[key]

    def _find_starts(
        self, source: fx.Node, owner: fx.Node, axis: int
    ) -> tuple[Tensor, Tensor] | None:
        channels, *sides = spatial(self.shapes[source], axis)
        held = self.moved[owner] if owner in self.moved else self.axis(owner)
        if source is owner and axis == held and self.heads(owner) == 1:
            pixels = torch.arange(math.prod(sides))
            return pixels, torch.zeros_like(pixels)
        places = torch.arange(channels * math.prod(sides))
        if source is not owner:
            places = self.moves[source].places
        shape = self.shapes[source]
        found, within = (by_pixel(part[places], shape, axis) for part in self.cells(owner))
        pixels, starts = found[:, 0], within[:, 0]
        beside = within - starts[:, None]
        whole = found.eq(pixels[:, None]).all() and beside.eq(torch.arange(channels)).all()
        return (pixels.contiguous(), starts.contiguous()) if whole else None
