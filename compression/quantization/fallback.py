"""What has no integer arithmetic: computed on real numbers, between codes."""

import operator
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn

from compression.affine import QParams
from compression.errors import UnsupportedTypeError
from compression.graph import place_of
from compression.layers import copy_model
from compression.quantization.codes import CodesOfSeveral
from compression.quantization.functions import apply

Path = tuple[int | str, ...]
"""The indices and names that lead to one tensor among those that an operator gives."""

_SEVERAL = {
    "max", "min", "sort", "topk", "median", "kthvalue", "cummax", "cummin", "var_mean", "std_mean",
    "attend",
}  # fmt: skip
_RECURRENT = {"LSTM", "GRU", "RNN"}
"""What gives tuples, or may, by name: attention gives its weights, too."""
OTHER = (
    "static INT8 keeps tensors of real numbers only; let another module do what comes from there on, "
    "or take quantize_dynamic or quantize_weights, which leave it as it is"
)


def tensors_of(node: fx.Node, layer: nn.Module | None) -> dict[fx.Node, Path]:
    """Return the nodes that are the tensors of what an operator gives; itself, where that is one."""
    kind = getattr(node.target, "__name__", node.target) if layer is None else type(layer).__name__
    several = kind in _SEVERAL or kind in _RECURRENT
    return dict(_items(node, (), kind in _RECURRENT) if several else ()) or {node: ()}


def _items(node: fx.Node, path: Path, recurrent: bool) -> Iterator[tuple[fx.Node, Path]]:
    """Yield what readers take of a tuple by numbers and names, nothing where one takes all of it.

    Of a recurrent layer's states a layer's own is taken: the batch is not their first axis.
    """
    taken = (operator.getitem, getattr)
    if not all(u.target in taken and type(u.args[1]) in (int, str) for u in node.users):
        return
    for user in node.users:
        index: Any = user.args[1]
        place = (*path, index)
        inner = dict(_items(user, place, True) if recurrent and place != (0,) else ())
        yield from (inner or {user: place}).items()


class Slot:
    """The place of an operand, or of a constant by its name, among an operator's arguments."""

    def __init__(self, which: int | str) -> None:
        """Stand for an operand's number or a constant's name."""
        self.index, self.name = (which, "") if isinstance(which, int) else (-1, which)


class FloatOperator(nn.Module):
    """An operator of the float network, and what it is told besides its operands."""

    def __init__(
        self,
        node: fx.Node,
        layer: nn.Module | None,
        constants: Mapping[fx.Node, Tensor],
        path: Path = (),
    ) -> None:
        """Take over a node's layer, function or method, and the constants that it reads.

        Of what it gives, `path` leads to the tensor that counts.
        """
        super().__init__()
        self.path = path
        self.layer = None if layer is None else copy_model(layer)
        self.target, self.place = node.target, place_of(node)
        operands: list[fx.Node] = []

        def told(source: fx.Node) -> Any:
            if source in constants:
                name = f"held{len(self._buffers)}"
                self.register_buffer(name, constants[source].detach().clone())
                return Slot(name)
            operands.append(source)
            return Slot(len(operands) - 1)

        self.args = fx.node.map_arg(node.args, told)
        self.kwargs = fx.node.map_arg(node.kwargs, told)
        self.parameter_buffers = tuple(self._buffers)

    def forward(self, *operands: Tensor) -> Tensor:
        """Return the operator's value; UnsupportedTypeError for other than one tensor of reals."""

        def given(told: Any) -> Any:
            if not isinstance(told, Slot):
                return told
            return getattr(self, told.name) if told.name else operands[told.index]

        args, kwargs = (fx.node.map_aggregate(part, given) for part in (self.args, self.kwargs))
        value = apply(self.target if self.layer is None else self.layer, args, kwargs)
        for index in self.path:
            value = getattr(value, index) if isinstance(index, str) else value[index]
        if not isinstance(value, Tensor) or not value.is_floating_point():
            raise UnsupportedTypeError(
                f"{self.place}: expected one tensor of real numbers, found {_about(value)}; {OTHER}"
            )
        return value


def _about(value: Any) -> str:
    return f"one of {value.dtype}" if isinstance(value, Tensor) else type(value).__name__


class InFloat(CodesOfSeveral):
    """An operator on the real numbers that codes stand for, requantized."""

    def __init__(self, operator: FloatOperator, inputs: list[QParams], output: QParams) -> None:
        """Apply `operator` to values of these parameters."""
        super().__init__(inputs, output)
        self.operator = operator

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return the codes of the operator's value."""
        reals = [x * self.input_scales[i] for i, x in enumerate(self.centred(inputs))]
        return self.encode(self.operator(*reals) / self.output_scale)


@torch.no_grad()
def constants_of(network: fx.GraphModule) -> dict[fx.Node, Tensor]:
    """Return the tensors of `network` that no input changes: parameters, and what is made of them."""
    found: dict[fx.Node, Any] = {}
    layers = dict(network.named_modules())
    for node in network.graph.nodes:
        if node.op == "get_attr":
            parent, _, name = str(node.target).rpartition(".")
            found[node] = getattr(layers[parent], name)
        elif node.op.startswith("call") and node.all_input_nodes and _all_in(node, found):
            args, kwargs = (fx.node.map_arg(a, found.__getitem__) for a in (node.args, node.kwargs))
            target = layers[str(node.target)] if node.op == "call_module" else node.target
            value = apply(target, args, kwargs)
            if isinstance(value, Tensor):
                found[node] = value
    return found


def _all_in(node: fx.Node, found: Mapping[fx.Node, Any]) -> bool:
    return all(source in found for source in node.all_input_nodes)
