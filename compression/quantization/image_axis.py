"""Along which axis a value holds its images, as far as operators tell it without sizes.

An axis that is counted from the end is never taken for that of the images.
"""

import operator
from collections.abc import Collection, Sequence
from typing import Any

from torch import fx, nn

_SEVERAL = ("chunk", "split", "unbind")
_OTHERS = ("stack", "t", "getattr", "size", "matmul", "einsum", "mean", "sum", "getitem")
"""What may put the images elsewhere, beside what moves them by a rule of its own."""


def counts_of_images(
    folded: fx.GraphModule, constants: Collection[fx.Node], numbers: Collection[fx.Node]
) -> set[fx.Node]:
    """Return the nodes that ask for the number of images: a size of a value along their axis."""
    axes, counts = dict[fx.Node, int](), set[fx.Node]()
    modules = dict(folded.named_modules())
    for node in folded.graph.nodes:
        read = [n for n in node.all_input_nodes if n not in constants and n not in numbers]
        found = {axes.get(source) for source in read}
        if node.op == "placeholder":
            axes[node] = 0
        elif _asks(node, axes):
            counts.add(node)
        elif read and len(found) == 1 and None not in found:
            axis = _moved(node, found.pop() or 0, counts, modules)
            axes |= {} if axis is None else {node: axis}
        elif not read and (axis := _expanded(node, counts)) is not None:
            axes[node] = axis
    return counts


def _asks(node: fx.Node, axes: dict[fx.Node, int]) -> bool:
    """Tell whether a node asks for the number of images."""
    if node.target == "size":
        return node.args[1:] == (axes.get(node.all_input_nodes[0]),)
    if node.target is not operator.getitem or not node.all_input_nodes:
        return False
    shape: Any = node.all_input_nodes[0]
    asked = shape.target == "size" or (shape.target is getattr and shape.args[1] == "shape")
    place: Any = node.args[1]
    return bool(asked) and type(place) is int and place == axes.get(shape.args[0])


def _expanded(node: fx.Node, counts: set[fx.Node]) -> int | None:
    """Return along which axis a constant is repeated for each image, if it is."""
    sizes = _told(node) if _name(node) in ("expand", "repeat") else ()
    return next((i for i, s in enumerate(sizes) if isinstance(s, fx.Node) and s in counts), None)


def _moved(
    node: fx.Node, axis: int, counts: set[fx.Node], modules: dict[str, nn.Module]
) -> int | None:
    """Return where the images are that were along `axis`; None where that is not known."""
    name, told = _name(node), _told(node)
    if node.op == "call_module":
        flat = isinstance(modules[str(node.target)], nn.Flatten | nn.Unflatten)
        return None if flat and axis else axis
    first = told[0] if told else None
    match name:
        case "permute":
            return told.index(axis) if axis in told else None
        case "transpose" | "swapaxes":
            return dict(zip(told, told[::-1], strict=True)).get(axis, axis)
        case "movedim" | "moveaxis":
            return _put(axis, *told[:2])
        case "flatten" | "unflatten":
            return axis if _is_beyond(first, axis) else None
        case "view" | "reshape":
            return 0 if axis == 0 and isinstance(first, fx.Node) and first in counts else None
        case "unsqueeze":
            return axis if _is_beyond(first, axis) else axis + 1
        case "squeeze" | "select" | "unbind" if type(first) is int and first != axis:
            return axis if _is_beyond(first, axis) else axis - 1
        case "squeeze" | "select" | "unbind":
            return None
        case "narrow":
            return axis if first != axis else None
        case "chunk" | "split":
            return axis if len(told) > 1 and told[1] != axis else None
        case "getitem" if _name(node.all_input_nodes[0]) in _SEVERAL:
            return axis
        case "getitem":
            parts = [*told, *[slice(None)] * (axis + 1 - len(told))]
            cut = all(isinstance(part, slice) for part in parts[: axis + 1])
            return axis if cut and parts[axis] == slice(None) else None
    return None if name in _OTHERS else axis


def _is_beyond(dim: Any, axis: int) -> bool:
    """Tell whether an axis lies behind another, or is counted from the end."""
    return type(dim) is int and (dim > axis or dim < 0)


def _put(axis: int, source: Any, target: Any) -> int | None:
    """Return where an axis is after another was put elsewhere; from the end it is none of these."""
    if type(source) is not int or type(target) is not int:
        return None
    if source == axis:
        return target if target >= 0 else None
    left = axis - (0 <= source < axis)
    return left + (0 <= target <= left)


def _told(node: fx.Node) -> Sequence[Any]:
    """Return what an operator is told beside its tensor; the numbers of a list, where that is first."""
    told = [*node.args[1:], *node.kwargs.values()]
    first = told[0] if told else None
    return list(first) if isinstance(first, list | tuple) else told


def _name(node: fx.Node) -> str:
    return str(getattr(node.target, "__name__", node.target))
