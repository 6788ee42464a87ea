"""The shapes of a quantized network's values, and how a node that computes nothing moves them."""

import math
from typing import Any

import torch
from torch import Tensor, fx, nn

from compression.errors import CompressionError, UnsupportedTypeError
from compression.quantization import StaticQuantizedModel


class _Shapes(fx.Interpreter):
    """Records the shape of each value, and where the numbers of a moved value come from."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.shapes: dict[fx.Node, list[int]] = {}
        self.moves: dict[fx.Node, Tensor] = {}

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

    def _move(self, n: fx.Node) -> Tensor:
        """Return where each number of `n` comes from; UnsupportedTypeError where it computes."""
        inputs = [a for a in n.all_input_nodes if a in self.shapes]
        count = torch.Size(self.shapes[inputs[0]]).numel() if len(inputs) == 1 else 0
        labels = torch.arange(count).mul(7919).add(13).remainder(1_000_003)
        if len(inputs) == 1:
            places, moved = (self._of(n, numbers) for numbers in (torch.arange(count), labels))
            if moved.equal(labels[places.clamp(0, max(0, count - 1))]):
                return places
        raise UnsupportedTypeError(
            f"{_place(n)} computes on codes, where an executor expected it to move them only"
        )

    def _of(self, n: fx.Node, numbers: Tensor) -> Tensor:
        def numbered(value: Any) -> Any:
            return numbers.view(value.shape) if isinstance(value, Tensor) else value

        args, kwargs = fx.node.map_aggregate(self.fetch_args_kwargs_from_env(n), numbered)
        moved: Tensor = getattr(self, n.op)(n.target, args, kwargs)
        return moved


def is_move(network: nn.Module, node: fx.Node) -> bool:
    """Tell whether a node only moves numbers: flatten and view, a slice, a permutation."""
    if node.op == "call_module":
        return type(network.get_submodule(str(node.target))) in (nn.Flatten, nn.Unflatten)
    return node.op in ("call_function", "call_method")


@torch.no_grad()
def shapes_of(model: StaticQuantizedModel, example: Tensor) -> dict[fx.Node, list[int]]:
    """Return the shape of each node's value for one image shaped like those of `example`.

    CompressionError where the network does not take such an image, and UnsupportedTypeError for a
    value whose first size is not the number of images: each names the node.
    """
    return _both(model, example)[0].shapes


@torch.no_grad()
def shapes_and_moves(
    model: StaticQuantizedModel, example: Tensor
) -> tuple[dict[fx.Node, list[int]], dict[fx.Node, Tensor]]:
    """Return what shapes_of does, and for each node that moves numbers where each comes from.

    Each is a place in its input, of one image (int64). UnsupportedTypeError names a node between
    layers that computes, or moves numbers from one image to another.
    """
    one, two = _both(model, example)
    for node, places in one.moves.items():
        size = next(math.prod(one.shapes[a]) for a in node.all_input_nodes if a in one.shapes)
        if not torch.equal(two.moves[node], torch.cat([places, places + size])):
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
