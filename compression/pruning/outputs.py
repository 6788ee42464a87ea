"""The layers that make a network's outputs: their filters are classes, or another answer."""

from collections.abc import Collection

from torch import fx, nn
from torch.nn import functional as F

from compression.errors import CompressionError, UnsupportedTypeError
from compression.graph import number_nodes, trace
from compression.weights import WEIGHTED

_FUNCTIONS = (F.linear, F.bilinear, F.conv1d, F.conv2d, F.conv3d, F.conv_transpose1d)
_MIX_CHANNELS = (*_FUNCTIONS, F.conv_transpose2d, F.conv_transpose3d)


def output_layers(model: nn.Module, named: Collection[str] | None) -> set[nn.Module]:
    """Return the layers of `model` that no other one follows on the way to an output.

    `named` gives their dotted names unless it is None. Otherwise torch.fx traces the network, and
    UnsupportedTypeError says why where it cannot. A sum or a product of
    layers' values has all of these layers; of several outputs each has its own.
    """
    if named is None:
        names = _names_of_outputs(model)
    elif isinstance(named, str) or not all(isinstance(name, str) for name in named):
        raise UnsupportedTypeError(
            f"outputs must be the dotted names of layers, found {named!r}; pass ('head',)"
        )
    else:
        names = set(named)
    layers = dict(model.named_modules(remove_duplicate=False))
    unknown = sorted(names - layers.keys())
    if unknown:
        raise CompressionError(f"outputs: the network has no layer {unknown[0]!r}")
    return {layers[name] for name in names}


def _names_of_outputs(model: nn.Module) -> set[str]:
    try:
        traced = trace(model)
    except UnsupportedTypeError as error:
        raise UnsupportedTypeError(
            f"which layers make the outputs was not found, since {error}. Name them instead: "
            "outputs=('head',)"
        ) from error
    modules = dict(traced.named_modules())
    sizes = number_nodes(traced.graph)
    (output,) = (node for node in traced.graph.nodes if node.op == "output")
    pending, seen, names = [*output.all_input_nodes], set(sizes), set[str]()
    while pending:
        node: fx.Node = pending.pop()
        if node in seen:
            continue
        seen.add(node)
        module = modules[str(node.target)] if node.op == "call_module" else nn.Identity()
        names |= {
            f"{node.target}.{name}".removesuffix(".")
            for name, inner in module.named_modules(remove_duplicate=False)
            if isinstance(inner, WEIGHTED)
        }
        if not isinstance(module, WEIGHTED) and node.target not in _MIX_CHANNELS:
            pending += node.all_input_nodes
    return names
