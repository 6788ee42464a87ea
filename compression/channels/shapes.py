"""The shapes of what each node of a graph gives, without its arithmetic where torch can tell."""

import copy
import operator
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_map

from compression.channels.walk import Shapes
from compression.errors import CompressionError
from compression.graph import trace
from compression.layers import copy_model, failing_module


def without_data(model: nn.Module) -> nn.Module:
    """Return a copy of `model` whose tensors have shapes only; tied tensors stay tied."""
    memo: dict[int, Any] = {}
    for tensor in [*model.parameters(), *model.buffers()]:
        empty = torch.empty_like(tensor, device="meta")
        kept = (
            nn.Parameter(empty, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else empty
        )
        memo[id(tensor)] = kept
    try:
        return copy.deepcopy(model, memo)
    except (RuntimeError, TypeError, AttributeError, NotImplementedError):
        return copy_model(model)  # says what cannot be copied


@torch.no_grad()
def shapes_of(
    traced: fx.GraphModule,
    model: nn.Module,
    example: tuple[Any, ...],
    *,
    training: bool = False,
    sizes: tuple[int, ...] | None = None,
) -> dict[fx.Node, Shapes]:
    """Return the shapes that the nodes of `traced`, the graph of `model`, give for an example.

    `traced` may lack data; where that is not enough, a copy of `model` computes. With `sizes` the graph
    is that of images of these sizes. CompressionError for an example that the network cannot take.
    """
    try:
        return _record(traced, tree_map(_emptied, example))
    except Exception:  # a forward that makes tensors of its own, or looks at numbers
        pass
    lent = trace(model, training=training, whole=True, sizes=sizes)
    try:
        shapes = _record(lent, example)
    except (CompressionError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # whatever the user's code does with the example
        when = " in training; take one of the size that it is trained with" if training else ""
        found = str(error).partition("\n\nWhile executing")[0]  # torch.fx adds the node
        raise CompressionError(
            f"the network cannot take the example{when}: {failing_module(lent, error)}: {found}"
        ) from error
    nodes = zip(traced.graph.nodes, lent.graph.nodes, strict=True)
    return {node: shapes[twin] for node, twin in nodes if twin in shapes}


def _emptied(x: Any) -> Any:
    return x.to("meta") if isinstance(x, Tensor) else x


def _thawed(value: Any) -> Any:
    """Return arguments whose lists are Python's own: torch.fx's refuse to change."""
    match value:
        case list():
            return [_thawed(x) for x in value]
        case dict():
            return {key: _thawed(x) for key, x in value.items()}
        case tuple() if type(value) is tuple:
            return tuple(_thawed(x) for x in value)
    return value


def _record(network: fx.GraphModule, example: tuple[Any, ...]) -> dict[fx.Node, Shapes]:
    recorder = _Recorder(network)
    recorder.run(*example)
    return recorder.shapes


class _Recorder(fx.Interpreter):
    """Runs a graph and notes shapes."""

    def __init__(self, traced: fx.GraphModule) -> None:
        super().__init__(traced)
        self.shapes: dict[fx.Node, Shapes] = {}

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        """Call a function with lists that it may change, as torchvision's attention in clips does."""
        return super().call_function(target, *_thawed((args, kwargs)))

    def run_node(self, n: fx.Node) -> Any:
        """Return what a node gives; a tensor or several have shapes, a None among them that of ()."""
        found = super().run_node(n)
        if isinstance(found, Tensor):
            self.shapes[n] = tuple(found.shape)
        elif isinstance(found, tuple | list) and all(isinstance(x, Tensor | None) for x in found):
            self.shapes[n] = [() if x is None else tuple(x.shape) for x in found]
        elif found is None and n.target is operator.getitem:
            self.shapes[n] = ()
        return found
