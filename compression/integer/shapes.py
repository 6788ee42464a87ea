"""The shapes of a quantized network's values, and how a node that computes nothing moves them."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx, nn

from compression.errors import CompressionError, UnsupportedTypeError
from compression.quantization import StaticQuantizedModel
from compression.quantization import modules as q


class Move(NamedTuple):
    """Where each number of a moved value comes from: a place in `source` (int64)."""

    source: fx.Node
    places: Tensor

    @property
    def is_view(self) -> bool:
        """Tell whether all numbers keep their order."""
        return self.places.flatten().equal(torch.arange(self.places.numel()))


MOVING = (
    nn.Flatten, nn.Unflatten, nn.PixelShuffle, nn.PixelUnshuffle, nn.ChannelShuffle, q.MovedCodes,
)  # fmt: skip
"""The layers that only move numbers."""


class Shapes(fx.Interpreter):
    """Runs a network, and records the shape of each value."""

    def __init__(self, module: fx.GraphModule, *, keep: bool = False) -> None:
        """Record nothing yet; `keep` all values until the end."""
        super().__init__(module, garbage_collect_values=not keep)
        self.shapes: dict[fx.Node, list[int]] = {}

    def run_node(self, n: fx.Node) -> Any:
        """Run one node."""
        value = super().run_node(n)
        if isinstance(value, Tensor):
            self.shapes[n] = list(value.shape)
        return value


class _Moves(Shapes):
    """Records where the numbers of a moved value come from, too."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module, keep=True)  # moves are asked again
        self.moves: dict[fx.Node, Move] = {}

    def run_node(self, n: fx.Node) -> Any:
        try:
            value = super().run_node(n)
        except CompressionError:
            raise
        except Exception as error:
            reason = str(error).strip().splitlines() or [type(error).__name__]
            raise CompressionError(
                f"{_place(n)} cannot take what an image like the example's makes of it: {reason[0]}"
            ) from error
        if n in self.shapes and is_move(self.module, n):
            self.moves[n] = self._move(n)
        return value

    def _move(self, n: fx.Node) -> Move:
        """Return where each number of `n` comes from; UnsupportedTypeError where it computes."""
        sources = self._sources(n)
        if len(sources) == 1:
            (source,) = sources
            count = torch.Size(self.shapes[source]).numel()
            labels = torch.arange(count).mul(7919).add(13).remainder(1_000_003)
            places, moved = (self._of(n, numbers) for numbers in (torch.arange(count), labels))
            if moved.equal(labels[places.clamp(0, max(0, count - 1))]):
                return Move(source, places)
        raise UnsupportedTypeError(
            f"{_place(n)} computes on codes, where an executor expected it to move them only"
        )

    def _sources(self, n: fx.Node) -> set[fx.Node]:
        """Return the tensors that `n` reads, directly or as parts of one."""
        found: set[fx.Node] = set()
        for a in n.all_input_nodes:
            found |= {a} if a in self.shapes else self._sources(a) if self._is_tuple(a) else set()
        return found

    def _is_tuple(self, n: fx.Node) -> bool:
        value = self.env.get(n)
        return isinstance(value, tuple | list) and any(isinstance(v, Tensor) for v in value)

    def _of(self, n: fx.Node, numbers: Tensor) -> Any:
        """Return what `n` gives where the tensor that it reads holds `numbers`."""

        def given(a: fx.Node) -> Any:
            if self._is_tuple(a):
                return self._of(a, numbers)
            return numbers.view(self.shapes[a]) if a in self.shapes else self.env[a]

        args, kwargs = (fx.node.map_arg(told, given) for told in (n.args, n.kwargs))
        return getattr(self, n.op)(n.target, args, kwargs)


def is_move(network: nn.Module, node: fx.Node) -> bool:
    """Tell whether a node only moves numbers: flatten and view, a slice, a split, a permutation."""
    if node.op == "call_module":
        return type(network.get_submodule(str(node.target))) in MOVING
    return node.op in ("call_function", "call_method")


@torch.no_grad()
def shapes_and_moves(
    model: StaticQuantizedModel, example: Tensor
) -> tuple[dict[fx.Node, list[int]], dict[fx.Node, Move]]:
    """Return the shape of each node's value, and for each that moves numbers where each comes from.

    Both are those of one image shaped like the example's; moves that no layer reads, and that have the
    images elsewhere than first, are left out. CompressionError where the network does not take such an
    image. UnsupportedTypeError for a value whose first size is not the number of images, for a node
    between layers that computes, and for one that moves numbers from one image to another. Each names
    the node.
    """
    one, two = _both(model, example)
    moves: dict[fx.Node, Move] = {}
    mixed: dict[fx.Node, _Mixed] = {}
    for node in one.moves:
        found = _of_each_image(node, one, two, mixed)
        if isinstance(found, Move):
            moves[node] = found
        else:
            mixed[node] = found
    for node in model.network.graph.nodes:
        for source in () if is_move(model.network, node) else node.all_input_nodes:
            if source in mixed:
                raise mixed[source].reason
    return one.shapes, moves


class _Mixed(NamedTuple):
    """A move whose images do not come one after the other: of one image, and of two."""

    move: Move
    twice: Tensor
    reason: UnsupportedTypeError


def _of_each_image(
    node: fx.Node, one: _Moves, two: _Moves, mixed: Mapping[fx.Node, _Mixed]
) -> Move | _Mixed:
    """Return where the numbers of a node come from, through sources that mix images."""
    (source, places), twice = one.moves[node], two.moves[node].places.flatten()
    places = places.flatten()
    fixed = reason = _fixed_batch(node, one, two)
    if source in mixed:
        (source, before), before_twice, reason = mixed[source]
        places, twice = before[places], before_twice[twice]
    size = math.prod(one.shapes[source])
    if fixed is None and torch.equal(twice, torch.cat([places, places + size])):
        return Move(source, places)
    crossing = f"{_place(node)} moves numbers from one image to another"
    return _Mixed(Move(source, places), twice, reason or UnsupportedTypeError(crossing))


def _fixed_batch(node: fx.Node, one: _Moves, two: _Moves) -> UnsupportedTypeError | None:
    """Return the error for a value whose first size is not the number of images, None for another."""
    shape, twice = one.shapes[node], two.shapes.get(node)
    if shape[:1] == [1] and twice == [2, *shape[1:]]:
        return None
    other = "none" if twice is None else str(twice)
    return UnsupportedTypeError(
        f"the batch is fixed at {_place(node)}: its value is {shape} for one image and {other} for "
        "two, expected their number first; only the reference executor runs it"
    )


def _both(model: StaticQuantizedModel, example: Tensor) -> tuple[_Moves, _Moves]:
    """Run one image and two: what the number of images does not change shows by its shape."""
    if example.ndim < 1 or len(example) == 0:
        raise CompressionError(
            f"the example must hold at least one image, found the shape {tuple(example.shape)}"
        )
    one, two = (_Moves(model.network) for _ in range(2))
    failures: list[CompressionError | None] = []
    for run, images in ((one, example[:1]), (two, torch.cat([example[:1]] * 2))):
        try:
            run.run(images)
            failures.append(None)
        except CompressionError as error:  # a value before may say why
            failures.append(error)
    for node in one.shapes:
        fixed = _fixed_batch(node, one, two)
        if fixed is not None and (node not in one.moves or any(failures)):
            raise fixed from failures[1]
    if failures[0] is not None:
        raise failures[0]
    return one, two


def _place(node: fx.Node) -> str:
    """Name a node: the layer that it calls, or itself."""
    return str(node.target) if node.op == "call_module" else node.name
