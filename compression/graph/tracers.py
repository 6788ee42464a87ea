"""What torch.fx is given to follow a forward: tensors that note what is done with them, and where."""

import dis
import operator
import os
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import torch
from torch import fx

_OURS, _TORCHS = Path(__file__).parents[1], Path(torch.__file__).parent
_NOT_THE_USERS = (f"{_OURS}{os.sep}", f"{_TORCHS}{os.sep}", "<")
_SIZES = ("chunks", "split_size", "split_size_or_sections", "split_sizes")


class Proxy(fx.Proxy):
    """Shows `x += y` and its kin, which torch.fx takes for operators that make a new tensor."""

    def __bool__(self) -> bool:
        """Return True where an assertion asks."""
        return _asserts(sys._getframe(1)) or super().__bool__()

    def __len__(self) -> int:
        """Return how many tensors a split gives, which list() asks for."""
        count = _parts(self.node)
        return super().__len__() if count is None else count


def _in_place(name: str) -> Callable[..., Any]:
    function = getattr(operator, f"i{name}")

    def method(self: Proxy, other: Any) -> Any:
        # Named as torch.fx alone would name it: files hold the names.
        return self.tracer.create_proxy("call_function", function, (self, other), {}, name)

    return method


for _name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow"):
    setattr(Proxy, f"__i{_name}__", _in_place(_name))


class Tracer(fx.Tracer):
    """Notes at each node the module and the line of the user's code, called by `below`, that asked."""

    def __init__(self, below: CodeType | None = None) -> None:
        """Follow nothing yet."""
        super().__init__()
        self.below = below

    def proxy(self, node: fx.Node) -> fx.Proxy:
        """Return what a forward is given for a node's value."""
        return Proxy(node, self)

    def iter(self, obj: fx.Proxy) -> Iterator[Any]:
        """Go through the parts of a split."""
        count = _parts(obj.node)
        parts: Any = obj
        return super().iter(obj) if count is None else iter([parts[i] for i in range(count)])

    def create_arg(self, a: Any) -> Any:
        """Return what a node holds for an argument."""
        if type(a) is OrderedDict:  # as a dataclass is; torch.fx alone would make it a plain dict
            pairs = self.create_arg([*a.items()])
            return self.create_node("call_function", OrderedDict, (pairs,), {})
        return super().create_arg(a)

    def create_node(self, *args: Any, **kwargs: Any) -> fx.Node:
        """Make a node, and note its place."""
        node = super().create_node(*args, **kwargs)
        line = _line(sys._getframe(), self.below)
        where = self.scope.module_path if node.op != "call_module" else str(node.target)
        node.meta["place"] = " ".join(filter(None, [where, f"({line})" if line else ""]))
        return node


def _asserts(frame: FrameType) -> bool:
    """Tell whether a frame asks for the truth of what it asserts, which computes nothing."""
    steps = [s for s in dis.get_instructions(frame.f_code) if s.offset >= frame.f_lasti]
    jump, *after = (step for step in steps if step.opname != "TO_BOOL")
    if jump.opname.endswith("IF_FALSE"):  # the first of several conditions
        after = [step for step in after if step.offset == jump.argval]
    return "JUMP" in jump.opname and after[0].opname == "LOAD_ASSERTION_ERROR"


def _parts(node: fx.Node) -> int | None:
    """Return how many tensors a split gives by its arguments alone, None where they do not tell."""
    kind = getattr(node.target, "__name__", node.target)
    named = (told for name, told in node.kwargs.items() if name in _SIZES)
    told = node.args[1] if len(node.args) > 1 else next(named, None)
    if kind in ("split", "split_with_sizes"):
        return len(told) if isinstance(told, list | tuple) else None
    return told if kind == "chunk" and type(told) is int else None


def _line(frame: FrameType | None, below: CodeType | None) -> str:
    """Return the file and line of the innermost frame of the user's code that `below` called."""
    while frame is not None and frame.f_code is not below:
        if is_of_user(frame.f_code):
            return f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"
        frame = frame.f_back
    return ""


def is_of_user(code: CodeType) -> bool:
    """Tell whether code is neither ours nor torch's."""
    return not code.co_filename.startswith(_NOT_THE_USERS)
