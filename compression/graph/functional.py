"""Layers of subclasses, whose forward calls torch's function with the layer's own tensors."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from torch import Tensor, fx, nn
from torch.nn import functional as F


class _Kind(NamedTuple):
    """A function that is a layer: what it is given in turn, and how the layer is made of it."""

    classes: tuple[type[nn.Module], ...]
    arguments: tuple[str, ...]
    defaults: dict[str, Any]
    make: Callable[[Any, dict[str, Any]], nn.Module]
    tensors: tuple[str, ...] = ("weight", "bias")


def _norm(held: Any, given: dict[str, Any]) -> nn.Module:
    kind = next(kind for kind in _NORMS if isinstance(held, kind))
    norm = kind(0, eps=given["eps"], momentum=held.momentum, affine=held.affine)
    norm.num_features, norm._buffers = held.num_features, held._buffers
    return norm


def _linear(held: Any, _: dict[str, Any]) -> nn.Module:
    return bare_layer(nn.Linear, held.weight, held.bias)


def _convolution(held: Any, given: dict[str, Any]) -> nn.Module:
    kind: Any = next(kind for kind in _CONVOLUTIONS if isinstance(held, kind))
    options = {name: given[name] for name in ("stride", "padding", "dilation", "groups")}
    return bare_layer(kind, held.weight, held.bias, **options)


def bare_layer(kind: Any, weight: Tensor, bias: Tensor | None, **options: Any) -> nn.Module:
    """Return a linear layer or a convolution without data, of the shape that these tensors have."""
    outputs, inputs, *sides = weight.shape
    shape = (inputs * options.get("groups", 1), outputs, *([sides] if sides else []))
    layer: nn.Module = kind(*shape, bias=bias is not None, device="meta", **options)
    return layer


_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_STATISTICS = ("running_mean", "running_var")
_KINDS: dict[Any, _Kind] = {
    F.batch_norm: _Kind(
        _NORMS,
        ("input", *_STATISTICS, "weight", "bias", "training", "momentum", "eps"),
        {"weight": None, "bias": None, "training": False, "momentum": 0.1, "eps": 1e-5},
        _norm,
        (*_STATISTICS, "weight", "bias"),
    ),
    F.linear: _Kind((nn.Linear,), ("input", "weight", "bias"), {"bias": None}, _linear),
} | {
    function: _Kind(
        (kind,),
        ("input", "weight", "bias", "stride", "padding", "dilation", "groups"),
        {"bias": None, "stride": 1, "padding": 0, "dilation": 1, "groups": 1},
        _convolution,
    )
    for function, kind in zip((F.conv1d, F.conv2d, F.conv3d), _CONVOLUTIONS, strict=True)
}


def layers_of_functions(traced: fx.GraphModule, network: nn.Module) -> None:
    """Have `traced` call, in place, each layer of a subclass as the layer of torch that it is.

    torch.fx looks into modules of other packages than torch.nn: what timm's BatchNormAct2d computes
    comes as F.batch_norm of the module's own tensors, then its dropout and activation. The layer takes
    the module's name, and these as its parts. Where a subclass computes by other tensors than its own
    (weights that it standardizes first), the function stays.
    """
    made: dict[str, str] = {}
    for node in list(traced.graph.nodes):
        kind = _KINDS.get(node.target) if node.op == "call_function" else None
        given = kind and _given(node, kind)
        name = _owner(given, kind.tensors) if kind and given else ""
        held = network.get_submodule(name) if name else None
        if not (kind and given and isinstance(held, kind.classes) and _is_whole(held, given, kind)):
            continue
        layer = kind.make(held, given)
        if made.setdefault(name, repr(layer)) != repr(layer):  # called twice, each time otherwise
            continue
        layer._parameters, layer.training = held._parameters, held.training
        traced.set_submodule(name, with_parts(layer, held))
        with traced.graph.inserting_before(node):
            call = traced.graph.call_module(name, (given["input"],))
        call.meta |= node.meta
        node.replace_all_uses_with(call)
        traced.graph.erase_node(node)


def with_parts(layer: nn.Module, held: nn.Module) -> nn.Module:
    """Return `layer`, given the parts of `held`, which others call by their names."""
    for name, part in held.named_children():
        layer.add_module(name, part)
    return layer


def arguments_of(node: fx.Node, names: Sequence[str]) -> dict[str, Any]:
    """Return what a call is given by the names of its parameters, by position or not."""
    return {**dict(zip(names, node.args, strict=False)), **node.kwargs}


def _given(node: fx.Node, kind: _Kind) -> dict[str, Any] | None:
    """Return what a function is given by name, None where that is not what it is known to take."""
    told = kind.arguments[: len(node.args)]
    if len(node.args) > len(told) or node.kwargs.keys() & {*told}:
        return None
    given = kind.defaults | arguments_of(node, kind.arguments)
    plain = {name: v for name, v in given.items() if name not in ("input", *kind.tensors)}
    fixed = not any(isinstance(v, fx.Node) for part in plain.values() for v in _parts(part))
    return given if fixed and given.keys() == set(kind.arguments) else None


def _parts(value: Any) -> list[Any]:
    return list(value) if isinstance(value, tuple | list) else [value]


def _owner(given: dict[str, Any], tensors: tuple[str, ...]) -> str:
    """Return the name of the module whose tensors of these names are given; none for others."""
    owners = set()
    for name in tensors:
        node = given[name]
        if node is not None:
            of_module = isinstance(node, fx.Node) and node.op == "get_attr"
            owner, _, attribute = str(node.target).rpartition(".") if of_module else ("", "", "")
            owners.add(owner if attribute == name else "")
    return owners.pop() if len(owners) == 1 else ""


def _is_whole(held: Any, given: dict[str, Any], kind: _Kind) -> bool:
    """Tell whether a module's tensors are all given, and are the module's in its mode."""
    all_given = all(
        isinstance(getattr(held, name, None), Tensor) == (given[name] is not None)
        for name in kind.tensors
    )
    return all_given and given.get("training", held.training) is held.training
