"""A model's weights: the matrices that techniques reach, and those that they do not."""

from collections.abc import Iterable
from typing import NamedTuple

from torch import Tensor, nn

from compression.errors import UnsupportedTypeError
from compression.layers import (
    COMPRESSIBLE,
    TRANSPOSED,
    check_model,
    nothing_compressible,
    parameter_tensors,
)

WEIGHTED = (
    *(*COMPRESSIBLE, *TRANSPOSED),
    *(nn.MultiheadAttention, nn.RNNBase, nn.RNNCellBase, nn.Bilinear),
)


class Weight(NamedTuple):
    """A weight that techniques reach: its dotted name as in named_parameters, and its layer."""

    name: str
    layer: nn.Module
    tensor: Tensor

    @property
    def label(self) -> str:
        """The layer's dotted name, or the tensor's where a layer has several."""
        layer, _, attribute = self.name.rpartition(".")
        return layer if attribute == "weight" else self.name


def weights(
    model: nn.Module, *, tied: bool = False, also: tuple[type[nn.Module], ...] = ()
) -> list[Weight]:
    """Return the weights that techniques reach, a tied one once unless `tied`, after check_model.

    They are the matrices, of two dimensions or more, of linear layers, convolutions, transposed
    convolutions, attention, recurrent layers and their cells, bilinear layers, and of the types
    `also`; subclasses count.
    Raises CompressionError where there are none.
    """
    check_model(model)
    found: dict[object, Weight] = {}
    for prefix, layer in model.named_modules(remove_duplicate=not tied):
        reached = isinstance(layer, WEIGHTED + also)
        for attribute, tensor in layer._parameters.items() if reached else ():
            if tensor is None or tensor.ndim < 2 or not tensor.numel() or "weight" not in attribute:
                continue
            name = f"{prefix}.{attribute}" if prefix else attribute
            if tensor.itemsize == 1:
                raise UnsupportedTypeError(
                    f"{name}: expected numbers of 16 bits or more, found {tensor.dtype}; widen the "
                    "network first, by .float()"
                )
            found.setdefault(name if tied else id(tensor), Weight(name, layer, tensor))
    if not found:
        raise nothing_compressible(model)
    return list(found.values())


def unreached_weights(model: nn.Module, reached: Iterable[Tensor]) -> dict[str, str]:
    """Return the matrices of `model` that are none of `reached`, by dotted name, and why."""
    known = {id(tensor) for tensor in reached}
    missed = {}
    for name, tensor in parameter_tensors(model):
        if tensor.ndim > 1 and tensor.numel() and id(tensor) not in known:
            owner = model.get_submodule(name.rpartition(".")[0])
            missed[name] = f"{type(owner).__name__} is no layer whose weights are known"
            if not isinstance(tensor, nn.Parameter):
                missed[name] = f"{type(owner).__name__} holds integer codes"
            elif isinstance(owner, nn.Embedding | nn.EmbeddingBag):
                missed[name] = "the rows of an embedding are looked up, not multiplied"
            elif name.endswith(("bias_k", "bias_v")):
                missed[name] = (
                    "attention appends it to its keys or values, and multiplies it by none"
                )
    return missed
