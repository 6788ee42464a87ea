"""Where each value of a network lies in memory: what it needs around it, and until when."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, fx

from compression.integer.shapes import Move
from compression.integer.steps.axes import LAST, spatial
from compression.integer.steps.beside import Beside, beside
from compression.integer.steps.geometry import PLANES, Buffers, Geometry
from compression.integer.steps.planes import in_planes
from compression.integer.steps.readings import NO_BORDER, Readings
from compression.integer.steps.step import Place


@dataclass(frozen=True, slots=True)
class Value:
    """Where a node's codes lie, and how.

    `offsets` (int32) are those of its pixels where they are others than all of `geometry`'s, `stride`
    that from image to image; its channels begin at `begin` of each pixel.
    """

    geometry: Geometry
    memory: Tensor
    stride: int
    offsets: Tensor | None = None
    begin: int = 0

    def place(self) -> Place:
        """Return where a step finds these codes, pixel by pixel."""
        offsets = self.geometry.all_offsets() if self.offsets is None else self.offsets
        offsets = offsets + self.begin if self.begin else offsets
        return Place(self.memory, offsets, self.stride, self.geometry.zero)


class Layout(Readings):
    """The values of a network in `buffers`; memory is used again unless `keep` is given.

    `pixel` gives the bytes of a pixel of so many channels; `in_place` writes the parts of a
    concatenation where they belong; `planes` holds what only windows of stride 2 read in planes.
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
        in_place: bool = False,
        planes: bool = False,
    ) -> None:
        """Give memory to nothing yet."""
        super().__init__(network, shapes, moves)
        self.buffers, self.keep, self.pixel = buffers, keep, pixel
        self.values: dict[fx.Node, Value] = {}
        self.beside = beside(self) if in_place else {}
        """What lies in the memory of a concatenation, and these themselves."""
        self._shared: dict[fx.Node, Value] = {}
        for node, place in self.beside.items():
            if node is not place.owner:
                self._widen(place.owner, self.borders.pop(node, NO_BORDER))
                self.last[place.owner] = max(self.last[place.owner], self.last.pop(node))
        self._in_planes = in_planes(self) - self.beside.keys() if planes else set[fx.Node]()

    def take(self, node: fx.Node, zero: int) -> Value:
        """Give memory to a node's value, whose code of 0 is `zero`."""
        if node in self.beside:
            return self._take_beside(node, self.beside[node], zero)
        axis = self.moved[node] if node in self.moved else self.axis(node)
        sides = spatial(self.shapes[node], axis)
        heads = self.heads(node)
        if heads > 1:
            sides = [sides[0] * heads, 1, 1, math.prod(sides[1:]) // heads]
        planes = PLANES if node in self._in_planes else (1, 1)
        geometry = self._geometry(sides, self.borders.get(node, NO_BORDER), zero, planes)
        memory = self.buffers.take(geometry)
        self.values[node] = Value(geometry, memory, geometry.stride)
        if heads > 1:
            return self._view(node, node, LAST) or self.values[node]
        return self.values[node]

    def _geometry(
        self,
        sides: list[int],
        border: tuple[int, int, int],
        zero: int,
        planes: tuple[int, int] = (1, 1),
    ) -> Geometry:
        channels, frames, height, width = sides
        pixel = self.pixel(channels)
        return Geometry(channels, frames, height, width, border, zero, pixel, planes)

    def _take_beside(self, node: fx.Node, place: Beside, zero: int) -> Value:
        """Return a value's part of the memory of a concatenation, whose first part takes all of it."""
        if place.owner not in self._shared:
            border = self.borders.get(place.owner, NO_BORDER)
            geometry = self._geometry(self.spatial(place.owner), border, zero)
            self._shared[place.owner] = Value(
                geometry, self.buffers.take(geometry), geometry.stride
            )
        whole = self._shared[place.owner]
        own = replace(whole.geometry, channels=self.spatial(node)[0])
        self.values[node] = replace(whole, geometry=own, begin=place.begin)
        return self.values[node]

    def read(self, node: fx.Node, source: Any) -> Value:
        """Return where a layer finds what it reads."""
        owner = self.owner(source)
        if self.is_read_whole(node, source):
            return self.values[owner]
        view = self._view(source, owner, self.axis_of(node, source))
        assert view is not None
        return view

    def release(self, node: fx.Node) -> None:
        """Give back the memory of what `node` was the last to read."""
        for owner in [n for n, last in self.last.items() if last == self.order[node]]:
            if owner in self.values and not self.keep:
                value = self.values[owner]
                if not value.stride:  # a constant: nothing writes it
                    continue
                self.buffers.give_back(value.geometry, value.memory)

    def codes(self, images: int) -> dict[fx.Node, Tensor]:
        """Return the codes that lie in memory now, of each node that has some."""
        found = {}
        for node, value in self.values.items():
            pixels, channels = self.cells(node)
            places = value.place().offsets.long()[pixels] + channels
            sizes = images, value.stride or value.geometry.stride
            lines = value.memory.as_strided(sizes, (value.stride, 1))
            found[node] = lines[:, places].view(images, *self.shapes[node][1:])
        return found

    def whence(self, node: fx.Node) -> tuple[fx.Node, Tensor]:
        """Return what has the codes that a node moves, and in which byte of an image each lies."""
        root, places = self.moves[node]
        pixels, channels = self.cells(root)
        offsets = self.values[root].geometry.all_offsets().long()
        return root, (offsets[pixels] + channels)[places]

    def _view(self, source: fx.Node, owner: fx.Node, axis: int) -> Value | None:
        """Return the codes of `source` within the memory of `owner`."""
        found = self.starts(source, owner, axis)
        if found is None:
            return None
        value = self.values[owner]
        sides, zero = spatial(self.shapes[source], axis), value.geometry.zero
        geometry = self._geometry(sides, NO_BORDER, zero)
        offsets = value.geometry.all_offsets()[found[0]] + found[1].int()
        return replace(value, geometry=geometry, offsets=offsets)
