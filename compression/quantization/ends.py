"""A network's inputs and outputs: what static INT8 wants of them, and the structure of outputs."""

import dataclasses
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from torch import fx

from compression.errors import UnsupportedTypeError
from compression.graph import number_nodes
from compression.nested import named_leaves


def check_ends(graph: fx.Graph) -> None:
    """Refuse a network of other than one input tensor, and one that returns other than tensors."""
    inputs = [str(node.target) for node in graph.nodes if node.op == "placeholder"]
    if len(inputs) != 1 or inputs[0].startswith("*"):
        raise UnsupportedTypeError(
            f"static INT8 needs a network of one input tensor, found {', '.join(inputs) or 'none'}; "
            "wrap it in a module whose forward takes one"
        )
    numbers, outputs = number_nodes(graph), returned(graph)
    wrong = {path: "a size" for path, node in outputs if node in numbers}
    wrong |= {path: "a constant" for path, node in outputs if node.op == "get_attr"}
    if not outputs:
        wrong[""] = type(_result(graph)).__name__
    for path, found in wrong.items():
        raise refused_output(path, found)


def refused_output(path: str, found: str) -> UnsupportedTypeError:
    """Return the error for what a network returns at `path`."""
    place = f" at {path!r}" if path else ""
    return UnsupportedTypeError(
        "static INT8 needs a network that returns tensors, alone or in tuples, lists, dictionaries "
        f"and dataclasses, found {found}{place}; wrap it in a module that returns tensors"
    )


def returned(graph: fx.Graph) -> list[tuple[str, fx.Node]]:
    """Return the tensors that a graph returns, in order, each with its path ("out", "boxes.1")."""
    ends = containers(graph)
    nodes = {node: node for node in graph.nodes if node not in ends}
    return list(named_leaves(structured(graph, nodes), fx.Node))


def structured(graph: fx.Graph, values: Mapping[fx.Node, Any]) -> Any:
    """Return what a graph returns where its tensors are `values`, in the network's own structure."""
    return _filled(_result(graph), values)


def containers(graph: fx.Graph) -> set[fx.Node]:
    """Return the nodes that only put together what a graph returns, in collections with a class."""
    found: set[fx.Node] = set()
    left = [node for node in graph.nodes if node.op == "output"]
    while left:
        made = [node for node in left.pop().all_input_nodes if _is_collection(node.target)]
        found.update(made)
        left.extend(made)
    return found


def _is_collection(kind: Any) -> bool:
    """Tell whether a node's target makes a dataclass, a named tuple or an ordered dictionary."""
    return isinstance(kind, type) and (
        dataclasses.is_dataclass(kind) or issubclass(kind, OrderedDict) or hasattr(kind, "_fields")
    )


def _result(graph: fx.Graph) -> Any:
    return next(iter(reversed(graph.nodes))).args[0]


def _filled(value: Any, values: Mapping[fx.Node, Any]) -> Any:
    """Return a node's argument with values for nodes, its collections those of plain Python."""
    if isinstance(value, fx.Node):
        if value in values:
            return values[value]
        make: Any = value.target
        return make(*_filled(value.args, values), **_filled(value.kwargs, values))
    if isinstance(value, tuple):
        return tuple(_filled(item, values) for item in value)
    if isinstance(value, list):
        return [_filled(item, values) for item in value]
    if isinstance(value, dict):
        return {key: _filled(item, values) for key, item in value.items()}
    return value
