"""Lowering: a folded float graph, node by node, onto layers that compute on int8 codes."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import fx, nn

from compression.affine import QParams, qparams_from_range
from compression.errors import CompressionError, UnsupportedTypeError
from compression.graph import number_nodes, place_of
from compression.quantization import modules as q
from compression.quantization import operators as op
from compression.quantization.calibration import Range
from compression.quantization.layer import LAYERS

_UNSEEN = torch.tensor(0.0), torch.tensor(1.0)
"""The range of a value that calibration never saw other than 0: any will do."""


class Lowering:
    """Rewrites a folded graph; `ranges` holds each node's smallest and largest value, by name.

    An addition is taken into the layer that computes its last operand, where nothing else uses that
    layer's output, and a clamp into whatever is before it: their values are never rounded between.
    """

    def __init__(self, folded: fx.GraphModule, ranges: Mapping[str, Range] | None) -> None:
        """Prepare to lower `folded`; without ranges, to a network whose state is yet to be loaded."""
        self.folded = folded
        self.ranges = ranges
        self.layers = dict(folded.named_modules())
        self.numbers = number_nodes(folded.graph)
        self.graph = fx.Graph()
        self.modules: dict[str, nn.Module] = {}
        self.values: dict[fx.Node, Any] = {}
        self.qparams: dict[fx.Node, QParams] = {}
        self.rounded: dict[str, QParams] = {}  # what is rounded, by name
        self.taken: dict[fx.Node, fx.Node] = {}  # a node -> the one that computes it too

    def lower(self) -> fx.GraphModule:
        """Return the network on codes."""
        check_ends(self.folded.graph)
        for node in self.folded.graph.nodes:
            match node.op:
                case "placeholder":
                    self._input(node)
                case "output":
                    self._output(node)
                case _:
                    self._operator(node)
        return fx.GraphModule(self.modules, self.graph).eval()

    def _layer_of(self, node: fx.Node) -> nn.Module | None:
        return self.layers[str(node.target)] if node.op == "call_module" else None

    def _kind(self, node: fx.Node) -> Any:
        return op.kind_of(node, self._layer_of(node))

    def _range(self, node: fx.Node) -> QParams:
        ends = _UNSEEN if self.ranges is None else self.ranges[node.name]
        if bool(ends[0] == 0) and bool(ends[1] == 0):
            ends = _UNSEEN
        try:
            self.rounded[node.name] = qparams_from_range(*ends, symmetric=False)
        except CompressionError as error:
            raise CompressionError(f"{place_of(node)}, {node.name}: {error}") from error
        return self.rounded[node.name]

    def _emit(self, node: fx.Node, name: str, module: nn.Module, *inputs: fx.Node) -> None:
        while name in self.modules:  # one layer called twice has two ranges
            name = f"{name}_again"
        self.modules[name] = module
        self.values[node] = self.graph.call_module(name, tuple(self.values[i] for i in inputs))
        self.values[node].meta["place"] = place_of(node)

    def _input(self, node: fx.Node) -> None:
        self.values[node] = self.graph.placeholder(node.name)
        self.qparams[node] = self._range(node)
        self._emit(node, f"quantize_{node.name}", q.Quantize(self.qparams[node]), node)

    def _output(self, node: fx.Node) -> None:
        result: Any = node.args[0]
        if result in self.qparams:
            self._emit(result, "dequantize", q.Dequantize(self.qparams[result]), result)
        self.graph.output(self.values[result])

    def _operator(self, node: fx.Node) -> None:
        layer, kind = self._layer_of(node), self._kind(node)
        inputs = [a for a in node.all_input_nodes if a in self.qparams]
        name = str(node.target) if layer is not None else node.name
        if node in self.numbers:
            self.values[node] = self.graph.node_copy(node, lambda n: self.values[n])
        elif node in self.taken:
            self._alias(node, self.taken[node])
        elif not inputs:
            raise op.unknown(node, kind, " of parameters or constants")
        elif op.keeps_values(node, kind):
            self._alias(node, inputs[0])
        elif type(layer) in LAYERS:
            self._layer(node, layer, name)  # type: ignore[arg-type]
        elif kind in op.CONCATENATE:
            self._concatenate(node, kind)
        elif (operands := op.added(node, kind)) is not None:
            self._join(node, kind, operands, dim=None)
        elif op.moves_values(node, kind, self.numbers):
            self._move(node, inputs[0])
        else:
            self._pointwise(node, layer, kind, name, inputs[0])

    def _pointwise(
        self, node: fx.Node, layer: nn.Module | None, kind: Any, name: str, source: fx.Node
    ) -> None:
        """Lower what reads one value: a clamp, a pool, a mean, a scaling by numbers."""
        before = self.qparams[source]
        if (bounds := op.clamp_bounds(node, kind, layer)) is not None:
            self._emit(node, node.name, q.ClampCodes(before, *bounds), source)
            self.qparams[node] = before
        elif (pool := op.max_pool_of(node, kind, layer)) is not None:
            self._emit(node, name, q.OnCodes(pool), source)
            self.qparams[node] = before
        elif (mean := op.mean_of(node, kind, layer)) is not None:
            after = self.qparams[node] = self._range(self._take_clamp(node, node))
            self._emit(node, name, q.QuantizedMean(mean, before, after), source)
        elif (scaling := op.scaling_of(node, kind)) is not None:
            after = self.qparams[node] = self._range(self._take_clamp(node, node))
            factor, offset = scaling
            module = q.QuantizedAffine(before, after, factor=factor, offset=offset)
            self._emit(node, name, module, source)
        else:
            raise op.unknown(node, kind)

    def _alias(self, node: fx.Node, source: fx.Node) -> None:
        self.values[node] = self.values[source]
        if source in self.qparams:
            self.qparams[node] = self.qparams[source]

    def _layer(self, node: fx.Node, layer: nn.Module, name: str) -> None:
        if getattr(layer, "padding_mode", "zeros") != "zeros":
            raise UnsupportedTypeError(f"{place_of(node)}: static INT8 pads with zeros only")
        if len(node.args) + len(node.kwargs) != 1:
            raise op.unknown(node, type(layer), " with an output size")
        operands, end = [node.all_input_nodes[0]], node
        addition = _only_user(node)
        if addition is not None:
            pair = op.added(addition, self._kind(addition)) or []
            others = [a for a in pair if a is not node and a in self.qparams]
            if len(others) == 1:  # the other operand is known by now: this layer is the last
                operands, end = [*operands, others[0]], addition
                self.taken[addition] = node
        output = None
        if any(user.op != "output" for user in end.users):
            output = self._range(self._take_clamp(node, end))
        parts = [self.qparams[i] for i in operands]
        module = q.QuantizedLayer(layer, parts[0], output, name, residual=parts[1:])
        self._emit(node, name, module, *operands)
        if output is not None:
            self.qparams[node] = output

    def _concatenate(self, node: fx.Node, kind: Any) -> None:
        operands = op.argument(node, 0, "tensors")
        dim = op.argument(node, 1, "dim", 0)
        if not isinstance(operands, list | tuple) or type(dim) is not int:
            raise op.unknown(node, kind, " of other than a list of tensors along a number")
        self._join(node, kind, list(operands), dim=dim)

    def _join(self, node: fx.Node, kind: Any, operands: list[Any], *, dim: int | None) -> None:
        if not all(operand in self.qparams for operand in operands):
            raise op.unknown(node, kind, " of parameters, constants or sizes")
        output = self._range(self._take_clamp(node, node))
        parts = [self.qparams[i] for i in operands]
        self._emit(node, node.name, q.QuantizedJoin(parts, output, dim=dim), *operands)
        self.qparams[node] = output

    def _move(self, node: fx.Node, source: fx.Node) -> None:
        if node.op == "call_module":
            name = str(node.target)
            self.modules[name] = self.layers[name]
        self.values[node] = self.graph.node_copy(node, lambda n: self.values[n])
        self.qparams[node] = self.qparams[source]

    def _take_clamp(self, node: fx.Node, end: fx.Node) -> fx.Node:
        """Return the clamp that alone uses `end`, computed with `node` from now on; or `end`.

        Codes saturate at the ends of their range, which holds 0: so must the clamp's.
        """
        user = _only_user(end)
        if user is None:
            return end
        bounds = op.clamp_bounds(user, self._kind(user), self._layer_of(user))
        if bounds is None or (bounds[0] or 0) > 0 or (bounds[1] or 0) < 0:
            return end
        self.taken[user] = node
        return user


def _only_user(node: fx.Node) -> fx.Node | None:
    users = list(node.users)
    return users[0] if len(users) == 1 else None


def check_ends(graph: fx.Graph) -> None:
    """Refuse a network of other than one input tensor and one output tensor."""
    inputs = [str(node.target) for node in graph.nodes if node.op == "placeholder"]
    if len(inputs) != 1 or inputs[0].startswith("*"):
        raise UnsupportedTypeError(
            f"static INT8 needs a network of one input tensor, found {', '.join(inputs) or 'none'}; "
            "wrap it in a module whose forward takes one"
        )
    result: Any = next(iter(reversed(graph.nodes))).args[0]
    if not isinstance(result, fx.Node) or result in number_nodes(graph):
        raise UnsupportedTypeError(
            "static INT8 needs a network with one tensor as its output, found "
            f"{type(result).__name__}; wrap it in a module that returns one"
        )
