"""Operators in place, made to return new tensors: a graph then says who reads which value."""

import operator
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from compression.errors import UnsupportedTypeError

_OPERATORS = {
    operator.iadd: operator.add, operator.isub: operator.sub, operator.imul: operator.mul,
    operator.itruediv: operator.truediv, operator.ifloordiv: operator.floordiv,
    operator.imod: operator.mod, operator.ipow: operator.pow,
}  # fmt: skip
# fmt: off
_VIEWS = frozenset([
    "view", "reshape", "flatten", "unflatten", "getitem", "transpose", "permute", "squeeze",
    "unsqueeze", "chunk", "split", "narrow", "expand", "contiguous", "to", "detach", "unbind",
    "swapaxes", "swapdims", "movedim", "moveaxis", "tensor_split", "view_as", "reshape_as", "ravel",
    "expand_as", "float", "double", "half", "bfloat16", "type", "type_as", "select", "diagonal", "t",
    "getattr", "unfold", "as_strided", "real", "imag", "dropout", "dropout1d", "dropout2d",
    "dropout3d", "alpha_dropout", "feature_alpha_dropout", "vsplit", "hsplit", "dsplit",
    "split_with_sizes", "adjoint", "positive",
])
# fmt: on
"""What may return the memory that it was given."""
_VIEW_LAYERS = (nn.Identity, nn.Flatten, nn.Unflatten, nn.modules.dropout._DropoutNd)
_NUMBERS = ("size", "dim", "numel", "nelement", "ndimension")
_PYTHONS = ("_operator", "operator", "math", "builtins")


def make_functional(traced: fx.GraphModule, *, whole: bool = False) -> fx.GraphModule:
    """Make every operator of `traced` return a new tensor, in place, and drop what nobody reads.

    With `whole`, what nobody reads stays. Later readers of a tensor that was written read what was
    written. Raises UnsupportedTypeError with the place where another view of the written memory is
    read later.
    """
    modules = dict(traced.named_modules())
    numbers = number_nodes(traced.graph)
    nodes = list(traced.graph.nodes)
    order = {node: i for i, node in enumerate(nodes)}
    bases: dict[fx.Node, fx.Node] = {}
    for node in nodes:
        source = next(iter(node.all_input_nodes), None)
        bases[node] = node
        if source is not None and _is_view(node, modules):
            bases[node] = bases[source]
        elif source is not None and _rewrite(node, modules) and source not in numbers:
            _check_relatives(node, source, bases, order)
            for user in [u for u in source.users if order[u] > order[node]]:
                user.replace_input_with(source, node)
    for module in modules.values():
        if getattr(module, "inplace", False):
            module.inplace = False  # type: ignore[assignment]
    if not whole:
        traced.graph.eliminate_dead_code()
    traced.delete_all_unused_submodules()
    traced.recompile()
    return traced


def number_nodes(graph: fx.Graph) -> set[fx.Node]:
    """Return the nodes whose values are sizes or numbers made of sizes, not tensors."""
    found: set[fx.Node] = set()
    for node in graph.nodes:
        asked = node.op == "call_method" and node.target in _NUMBERS
        if node.op == "call_function" and node.target is getattr:
            asked = node.args[1] in ("shape", "ndim")
        inputs = node.all_input_nodes
        made = (
            node.op == "call_function"
            and bool(inputs)
            and found.issuperset(inputs)
            and getattr(node.target, "__module__", "") in _PYTHONS
        )
        if asked or made:
            found.add(node)
    return found


def place_of(node: fx.Node) -> str:
    """Return where a node comes from: its module's path, and the file and line that called for it."""
    place: str = node.meta.get("place") or node.name
    return place


def _kind(node: fx.Node) -> str:
    return str(getattr(node.target, "__name__", node.target))


def _is_view(node: fx.Node, modules: Mapping[str, nn.Module]) -> bool:
    if node.op == "call_module":
        return isinstance(modules[str(node.target)], _VIEW_LAYERS)
    return node.op in ("call_function", "call_method") and _kind(node) in _VIEWS


def _rewrite(node: fx.Node, modules: Mapping[str, nn.Module]) -> bool:
    """Have a node return a new tensor; tell whether it wrote its first input before."""
    if node.kwargs.get("out") is not None:
        raise UnsupportedTypeError(
            f"{place_of(node)}: out= writes a tensor in place; assign instead"
        )
    if node.op == "call_module":
        return bool(getattr(modules[str(node.target)], "inplace", False))
    name = _kind(node)
    if node.op == "call_function" and node.target in _OPERATORS:
        node.target = _OPERATORS[node.target]  # type: ignore[index]
        return True
    if node.kwargs.get("inplace"):
        node.kwargs = {**node.kwargs, "inplace": False}
        return True
    if not name.endswith("_") or name.endswith("__"):
        return False
    homes: tuple[Any, ...] = (Tensor,) if node.op == "call_method" else (torch, F)
    twin = next((getattr(h, name[:-1]) for h in homes if hasattr(h, name[:-1])), None)
    if node.op not in ("call_function", "call_method") or twin is None:
        raise UnsupportedTypeError(
            f"{place_of(node)}: {name} writes a tensor in place; return a new one instead"
        )
    node.target = name[:-1] if node.op == "call_method" else twin
    return True


def _check_relatives(
    node: fx.Node, written: fx.Node, bases: Mapping[fx.Node, fx.Node], order: Mapping[fx.Node, int]
) -> None:
    for relative, base in bases.items():
        late = any(order[user] > order[node] for user in relative.users)
        if base is bases[written] and relative not in (written, node) and late:
            raise UnsupportedTypeError(
                f"{place_of(node)}: {_kind(node)} writes {written.name} in place while "
                f"{relative.name}, which shares its memory, is read later; make a new tensor "
                "instead, as in x = x + y"
            )
