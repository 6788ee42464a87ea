"""The shapes of a quantized network's values, and how a node that computes nothing moves them."""

import math
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


class _Shapes(fx.Interpreter):
    """Records the shape of each value, and where the numbers of a moved value come from."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module, garbage_collect_values=False)  # moves are asked again
        self.shapes: dict[fx.Node, list[int]] = {}
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
        if isinstance(value, Tensor):
            self.shapes[n] = list(value.shape)
            if is_move(self.module, n):
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

    Both are those of one image shaped like the example's. CompressionError where the network does not
    take such an image. UnsupportedTypeError for a value whose first size is not the number of images,
    for a node between layers that computes, and for one that moves numbers from one image to another.
    Each names the node.
    """
    one, two = _both(model, example)
    for node, (source, places) in one.moves.items():
        size = math.prod(one.shapes[source])
        if not torch.equal(two.moves[node].places, torch.cat([places, places + size])):
            raise UnsupportedTypeError(f"{_place(node)} moves numbers from one image to another")
    return one.shapes, one.moves


def _both(model: StaticQuantizedModel, example: Tensor) -> tuple[_Shapes, _Shapes]:
    """Run one image and two: what the number of images does not change shows by its shape."""
    if example.ndim < 1 or len(example) == 0:
        raise CompressionError(
            f"the example must hold at least one image, found the shape {tuple(example.shape)}"
        )
    one, two = (_Shapes(model.network) for _ in range(2))
    failures: list[CompressionError | None] = []
    for run, images in ((one, example[:1]), (two, torch.cat([example[:1]] * 2))):
        try:
            run.run(images)
            failures.append(None)
        except CompressionError as error:  # a value before may say why
            failures.append(error)
    for node, shape in one.shapes.items():
        twice = two.shapes.get(node)
        if shape[:1] != [1] or twice != [2, *shape[1:]]:
            other = "none" if twice is None else str(twice)
            raise UnsupportedTypeError(
                f"the batch is fixed at {_place(node)}: its value is {shape} for one image and "
                f"{other} for two, expected their number first; only the reference executor runs it"
            ) from failures[1]
    if failures[0] is not None:
        raise failures[0]
    return one, two


def _place(node: fx.Node) -> str:
    """Name a node: the layer that it calls, or itself."""
    return str(node.target) if node.op == "call_module" else node.name
