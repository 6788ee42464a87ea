"""A network as a torch.fx graph of its leaf layers, each node with its place in the user's code."""

import dis
import inspect
import operator
import os
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import torch
from torch import fx, nn

from compression.errors import CompressionError, UnsupportedTypeError
from compression.graph.inplace import make_functional
from compression.layers import alteration, copy_model

_OURS, _TORCHS = Path(__file__).parents[1], Path(torch.__file__).parent
_NOT_THE_USERS = (f"{_OURS}{os.sep}", f"{_TORCHS}{os.sep}", "<")
_WRAPPERS = {
    "DataParallel": "module", "DistributedDataParallel": "module", "OptimizedModule": "_orig_mod",
}  # fmt: skip
"""Where modules hold the network that they wrap, which torch.fx does not see."""
_SIZES = ("chunks", "split_size", "split_size_or_sections", "split_sizes")
_TRACEABLE = (
    "torch.fx follows no branch or loop on tensors or their sizes, no write to a part of a tensor, and "
    "no new tensor of another's sizes; quantize_dynamic and quantize_weights take any forward"
)


class _Proxy(fx.Proxy):
    """Shows `x += y` and its kin, which torch.fx takes for operators that make a new tensor."""

    def __bool__(self) -> bool:
        return _asserts(sys._getframe(1)) or super().__bool__()

    def __len__(self) -> int:  # which list() asks for
        count = _parts(self.node)
        return super().__len__() if count is None else count


def _in_place(name: str) -> Callable[..., Any]:
    function = getattr(operator, f"i{name}")

    def method(self: _Proxy, other: Any) -> Any:
        # Named as torch.fx alone would name it: files hold the names.
        return self.tracer.create_proxy("call_function", function, (self, other), {}, name)

    return method


for _name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow"):
    setattr(_Proxy, f"__i{_name}__", _in_place(_name))


class _Tracer(fx.Tracer):
    """Notes at each node the module and the line of the user's code that called for it."""

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Proxy(node, self)

    def iter(self, obj: fx.Proxy) -> Iterator[Any]:
        count = _parts(obj.node)
        parts: Any = obj
        return super().iter(obj) if count is None else iter([parts[i] for i in range(count)])

    def create_arg(self, a: Any) -> Any:
        if type(a) is OrderedDict:  # as a dataclass is; torch.fx alone would make it a plain dict
            pairs = self.create_arg([*a.items()])
            return self.create_node("call_function", OrderedDict, (pairs,), {})
        return super().create_arg(a)

    def create_node(self, *args: Any, **kwargs: Any) -> fx.Node:
        node = super().create_node(*args, **kwargs)
        line = _line(sys._getframe())
        where = self.scope.module_path if node.op != "call_module" else str(node.target)
        node.meta["place"] = " ".join(filter(None, [where, f"({line})" if line else ""]))
        return node


def trace(model: nn.Module, *, training: bool = False, whole: bool = False) -> fx.GraphModule:
    """Return a copy of `model` in eval mode as a torch.fx graph of its leaf layers.

    Optional arguments of its forward take their defaults; what was written in place makes new
    tensors; what no output needs is gone, unless `whole`. With `training`, the graph is that of a
    network in training mode, though its layers are in eval mode. Raises UnsupportedTypeError with
    the line of the forward for what torch.fx cannot trace, and for leaf layers that hooks or patches
    alter.
    """
    _refuse_wrappers(model)
    network = copy_model(model).train(training)
    tracer = _Tracer()
    if tracer.is_leaf_module(network, ""):
        network = nn.Sequential(network).train(training)
    try:
        _leave_out_optional(network)
        graph = tracer.trace(network)
    except CompressionError:
        raise
    except Exception as error:  # whatever the user's code does with a proxy
        raise UnsupportedTypeError(
            f"{type(model).__name__} cannot be traced by torch.fx"
            f"{_line_of_error(error)} ({str(error).split('. ')[0]}); {_TRACEABLE}"
        ) from error
    traced = fx.GraphModule(network, graph, type(model).__name__)
    for node in graph.nodes:
        reason = alteration(traced.get_submodule(node.target)) if node.op == "call_module" else None
        if reason:
            raise UnsupportedTypeError(f"{node.target}: {reason}")
    return make_functional(traced.eval(), whole=whole)


def _refuse_wrappers(model: nn.Module) -> None:
    for name, module in model.named_modules():
        held = _WRAPPERS.get(type(module).__name__)
        if held is not None and hasattr(module, held):
            raise UnsupportedTypeError(
                f"{name or 'the network'}: {type(module).__name__} wraps the network; pass what it "
                f"wraps, its attribute {held}"
            )


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


def _leave_out_optional(network: nn.Module) -> None:
    """Give `network`, a copy, a forward of its required arguments only.

    torch.fx would trace the others as inputs, and `if mask is not None` would take the wrong branch.
    """
    if isinstance(network, fx.GraphModule):
        return
    kind = type(network)
    parameters = list(inspect.signature(kind.forward).parameters.values())[1:]
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    required = [p.name for p in positional if p.default is p.empty]
    names = required or [p.name for p in positional[:1]]
    needed = [p for p in parameters if p.kind is p.KEYWORD_ONLY and p.default is p.empty]
    if not names or needed or len(names) == len(parameters):
        return
    # By name, since torch.fx names the inputs after the code's own variables.
    listed = ", ".join(names)
    forward = eval(f"lambda self, {listed}: forward(self, {listed})", {"forward": kind.forward})
    network.__class__ = type(kind.__name__, (kind,), {"forward": forward})


def _line(frame: FrameType | None) -> str:
    """Return the file and line of the innermost frame of the user's code below `trace`."""
    while frame is not None and frame.f_code is not trace.__code__:
        if _of_user(frame.f_code):
            return f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"
        frame = frame.f_back
    return ""


def _line_of_error(error: Exception) -> str:
    found = ""
    step = error.__traceback__
    while step is not None:
        code = step.tb_frame.f_code
        if _of_user(code):
            found = f" at {Path(code.co_filename).name}:{step.tb_lineno}"
        step = step.tb_next
    return found


def _of_user(code: CodeType) -> bool:
    return not code.co_filename.startswith(_NOT_THE_USERS)
