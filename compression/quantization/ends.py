"""What static INT8 wants of a network's inputs and outputs."""

from typing import Any

from torch import fx

from compression.errors import UnsupportedTypeError
from compression.graph import number_nodes


def check_ends(graph: fx.Graph) -> None:
    """Refuse a network of other than one input tensor and one output tensor."""
    inputs = [str(node.target) for node in graph.nodes if node.op == "placeholder"]
    if len(inputs) != 1 or inputs[0].startswith("*"):
        raise UnsupportedTypeError(
            f"static INT8 needs a network of one input tensor, found {', '.join(inputs) or 'none'}; "
            "wrap it in a module whose forward takes one"
        )
    result: Any = next(iter(reversed(graph.nodes))).args[0]
    if not isinstance(result, fx.Node) or result in number_nodes(graph):
        raise UnsupportedTypeError(
            "static INT8 needs a network with one tensor as its output, found "
            f"{type(result).__name__}; wrap it in a module that returns one"
        )
