"""A network as a torch.fx graph of its leaf layers, each node with its place in the user's code."""

import inspect
from pathlib import Path

import torch
from torch import fx, nn

from compression.errors import CompressionError, UnsupportedTypeError
from compression.graph.functional import layers_of_functions
from compression.graph.inplace import make_functional
from compression.graph.sized import SizedTracer
from compression.graph.tracers import Tracer, is_of_user
from compression.layers import alteration, copy_model

_WRAPPERS = {
    "DataParallel": "module", "DistributedDataParallel": "module", "OptimizedModule": "_orig_mod",
}  # fmt: skip
"""Where modules hold the network that they wrap, which torch.fx does not see."""
_TRACEABLE = (
    "torch.fx follows no branch or loop on tensors or their sizes, no write to a part of a tensor, and "
    "no new tensor of another's sizes; quantize_dynamic and quantize_weights take any forward"
)


def trace(
    model: nn.Module,
    *,
    training: bool = False,
    whole: bool = False,
    sizes: tuple[int, ...] | None = None,
) -> fx.GraphModule:
    """Return a copy of `model` in eval mode as a torch.fx graph of its leaf layers.

    Optional arguments of its forward take their defaults; what was written in place makes new
    tensors; what no output needs is gone, unless `whole`. With `training`, the graph is that of a
    network in training mode, though its layers are in eval mode. With `sizes`, those of an image, the
    graph is that of images of these sizes: a forward may branch and loop on them. Raises
    UnsupportedTypeError with the line of the forward for what torch.fx cannot trace, and for leaf
    layers that hooks or patches alter.
    """
    _refuse_wrappers(model)
    network = copy_model(model).train(training)
    tracer = _tracer(network, sizes)
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
    graph._tracer_cls = Tracer  # what a pickle makes anew, to no end
    traced = fx.GraphModule(network, graph, type(model).__name__)
    layers_of_functions(traced, network)
    for node in graph.nodes:
        reason = alteration(traced.get_submodule(node.target)) if node.op == "call_module" else None
        if reason:
            raise UnsupportedTypeError(f"{node.target}: {reason}")
    return make_functional(traced.eval(), whole=whole)


def _tracer(network: nn.Module, sizes: tuple[int, ...] | None) -> Tracer:
    if sizes is None:
        return Tracer(trace.__code__)
    like = next((p for p in network.parameters() if p.is_floating_point()), torch.empty(0))
    return SizedTracer(trace.__code__, sizes, like)


def _refuse_wrappers(model: nn.Module) -> None:
    for name, module in model.named_modules():
        held = _WRAPPERS.get(type(module).__name__)
        if held is not None and hasattr(module, held):
            raise UnsupportedTypeError(
                f"{name or 'the network'}: {type(module).__name__} wraps the network; pass what it "
                f"wraps, its attribute {held}"
            )


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


def _line_of_error(error: Exception) -> str:
    found = ""
    step = error.__traceback__
    while step is not None:
        code = step.tb_frame.f_code
        if is_of_user(code):
            found = f" at {Path(code.co_filename).name}:{step.tb_lineno}"
        step = step.tb_next
    return found
