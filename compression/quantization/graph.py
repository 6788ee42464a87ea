"""A folded float graph -> the plan of the network on codes that it becomes."""

import operator
from collections.abc import Iterator
from typing import Any

from torch import fx, nn

from compression.errors import UnsupportedTypeError
from compression.quantization import operators as op
from compression.quantization import pointwise
from compression.quantization.ends import check_ends, refused_output, returned
from compression.quantization.fallback import FloatOperator, tensors_of
from compression.quantization.interpolation import LINEAR
from compression.quantization.joins import Joins
from compression.quantization.layer import LAYERS
from compression.quantization.plan import (
    Alias,
    Clamp,
    Copy,
    Float,
    Function,
    Input,
    Interpolation,
    Layer,
    MaxPool,
    Mean,
    Move,
    Output,
    Plan,
    Real,
    Return,
    Scaling,
)
from compression.quantization.tail import RealInterpolation, RealSum


def plan_network(
    folded: fx.GraphModule, *, fallback: bool = False, streams: bool = True, tail: bool = True
) -> Plan:
    """Return the plan of the network on codes that `folded`, batch norms folded, becomes.

    With `streams` what rounding leaves of residual streams is kept; with `tail` the sums and linear
    interpolations stay real that outputs alone read, of last layers.

    Raises UnsupportedTypeError with the place of an operator that is not known, and for a network of
    other than one input tensor, or that returns other than tensors. With `fallback` an operator that
    is not known stays in float, where it reads codes and constants.
    """
    check_ends(folded.graph)
    planner = _Planner(folded, fallback=fallback, streams=streams, tail=tail)
    for node in folded.graph.nodes:
        planner.add(node)
    return planner.plan()


class _Planner(Joins):
    """Decides node by node, in the order of the graph.

    An addition is taken into the layer that computes its last operand, where nothing else uses that
    layer's output, and a clamp into whatever is before it: their values are never rounded between.
    """

    def add(self, node: fx.Node) -> None:
        """Plan one node."""
        if node.op == "placeholder":
            self._round(node, node)
            self.items.append(Input(node, self._name(f"quantize_{node.name}"), (node,)))
        elif node.op == "output":
            self._outputs(node)
        elif node not in self.known and node not in self.ends and node not in self.inner:
            try:
                self._operator(node)
            except UnsupportedTypeError:
                if not self._may_stay(node):
                    raise
                self._stay(node)

    def _outputs(self, end: fx.Node) -> None:
        """Plan the end of the network: each value that it returns is dequantized once."""
        outputs = returned(end.graph)
        for path, node in outputs:
            if node in self.several or node in self.known:
                raise refused_output(path, "parts" if node in self.several else "a constant")
        nodes = dict.fromkeys(self.roots.get(node, node) for _, node in outputs)
        for node in nodes:
            name = "dequantize" if len(nodes) == 1 else f"dequantize_{node.name}"
            self.items.append(Output(node, self._name(name) if node in self.codes else "", (node,)))
        self.items.append(Return(end))

    def _may_stay(self, node: fx.Node) -> bool:
        """Tell whether a node can be computed in float: it reads codes, and else constants only."""
        sources = set(node.all_input_nodes)
        whole = sources.isdisjoint(self.several) and not sources.isdisjoint(self.codes)
        return self.fallback and whole and sources <= self.codes.keys() | self.constants.keys()

    def _stay(self, node: fx.Node) -> None:
        """Have a node computed in float, once for each tensor that is read of what it gives."""
        layer = self._layer_of(node)
        operands: list[fx.Node] = []
        fx.node.map_arg((node.args, node.kwargs), operands.append)
        inputs = tuple(operand for operand in operands if operand not in self.constants)
        for end, path in tensors_of(node, layer).items():
            operator = FloatOperator(node, layer, self.constants, path)
            name = self._name(node.name if layer is None else str(node.target))
            self._round(end, self._take_clamp(end, end))
            self.items.append(Float(end, name, inputs, operator))
            while end is not node:
                self.inner.add(end)
                end = end.all_input_nodes[0]

    def _operator(self, node: fx.Node) -> None:
        layer, kind = self._layer_of(node), self._kind(node)
        self._repeat_constants(node)
        inputs = [a for a in node.all_input_nodes if a in self.codes]
        if node in self.numbers:
            if not self.known.isdisjoint(node.all_input_nodes):
                raise op.unknown_operator(node, kind, " of the sizes of parameters")
            self.items.append(Copy(node))
        elif node in self.taken:
            self._alias(node, self.taken[node])
        elif node in self.tail:
            self._stay_real(node, layer, kind)
        elif not inputs:
            raise op.unknown_operator(node, kind, " of parameters or constants")
        elif self.several.intersection(inputs) and kind is not operator.getitem:
            raise op.unknown_operator(node, kind, " of several tensors at once")
        elif op.keeps_values(node, kind):
            self._alias(node, inputs[0])
        elif type(layer) in LAYERS:
            self._layer(node, layer)  # type: ignore[arg-type]
        elif kind in op.CONCATENATE:
            self._concatenate(node, kind)
        elif (operands := op.addends_of(node, kind)) is not None:
            self._join(node, kind, operands, dim=None)
        elif (factors := pointwise.factors_of(node, kind)) is not None:
            self._multiply(node, kind, factors)
        elif self._is_of_rows(node, layer, kind):
            return
        elif op.moves_values(node, kind, self.numbers):
            self.several.update([node] if op.gives_several(kind) else [])
            self._move(node, layer, inputs[0])
        else:
            self._pointwise(node, layer, kind, inputs[0])

    def _pointwise(
        self, node: fx.Node, layer: nn.Module | None, kind: Any, source: fx.Node
    ) -> None:
        """Plan what reads one value: a clamp, a pool, a mean, a scaling by numbers."""
        name = node.name if layer is None else str(node.target)
        if (bounds := op.clamp_bounds(node, kind, layer)) is not None:
            self.items.append(Clamp(node, self._name(node.name), (source,), bounds))
            self.codes[node] = self.codes[source]
        elif (pool := op.max_pool_of(node, kind, layer)) is not None:
            self.items.append(MaxPool(node, self._name(name), (source,), pool))
            self.codes[node] = self.codes[source]
        elif (mean := op.mean_of(node, kind, layer)) is not None:
            self._round(node, self._take_clamp(node, node))
            self.items.append(Mean(node, self._name(name), (source,), mean))
        elif (scaling := op.scaling_of(node, kind)) is not None:
            self._round(node, self._take_clamp(node, node))
            self.items.append(Scaling(node, self._name(name), (source,), *scaling))
        elif (function := pointwise.function_of(node, kind, layer)) is not None:
            self._round(node, self._take_clamp(node, node))
            self.items.append(Function(node, self._name(name), (source,), function))
        elif found := pointwise.interpolation_of(node, kind, layer, self.numbers):
            self._interpolate(node, self._name(name), source, found)
        else:
            raise op.unknown_operator(node, kind)

    def _interpolate(
        self, node: fx.Node, name: str, source: fx.Node, found: pointwise.Interpolated
    ) -> None:
        if found.mode in LINEAR:
            self._round(node, self._take_clamp(node, node))
            item = Interpolation(node, name, (source,), found.resizing, found.sizes)
            self.items.append(item)
        else:
            self.items.append(Move(node, name, (source,), found.nearest(), found.sizes))
            self.codes[node] = self.codes[source]

    def _stay_real(self, node: fx.Node, layer: nn.Module | None, kind: Any) -> None:
        name = node.name if layer is None else str(node.target)
        if op.keeps_values(node, kind):
            self._alias(node, node.all_input_nodes[0])
        elif found := pointwise.interpolation_of(node, kind, layer, self.numbers):
            module = RealInterpolation(found.mode, found.resizing)
            source: Any = op.argument(node, 0, "input")
            self.items.append(Real(node, self._name(name), (source,), module, found.sizes))
        else:
            operands = op.addends_of(node, kind)
            assert operands is not None
            self.items.append(Real(node, self._name(name), tuple(operands), RealSum()))

    def _alias(self, node: fx.Node, source: fx.Node) -> None:
        self.items.append(Alias(node, source))
        self.roots[node] = self.roots.get(source, source)
        self._keep_fine(node, source)
        if source in self.codes:
            self.codes[node] = self.codes[source]

    def _keep_fine(self, node: fx.Node, source: fx.Node) -> None:
        """Note that what rounding left of a source is known of a node that has its values, too."""
        if source in self.fine and node not in self.several:
            self.fine.add(node)

    def _layer(self, node: fx.Node, layer: nn.Module) -> None:
        if getattr(layer, "padding_mode", "zeros") != "zeros":
            how = f" that pads by {layer.padding_mode}"
            raise op.unknown_operator(node, type(layer), how)
        if len(node.args) + len(node.kwargs) != 1:
            raise op.unknown_operator(node, type(layer), " with an output size")
        operands, end = [node.all_input_nodes[0]], node
        before, addition = self._next(node)
        if addition is not None and addition not in self.stream | self.tail:
            pair = op.addends_of(addition, self._kind(addition)) or []
            others = [a for a in pair if a is not before and a in self.codes]
            if len(others) == 1:  # the other operand is known by now: this layer is the last
                operands, end = [*operands, others[0]], addition
                self.taken |= dict.fromkeys((addition, *self._between(node, before)), node)
        self.items.append(Layer(node, self._name(str(node.target)), tuple(operands), layer))
        read = any(user.op != "output" and user not in self.ends for user in end.users)
        if read and node not in self.before_tail:
            self._round(node, self._take_clamp(node, end))

    def _between(self, node: fx.Node, last: fx.Node) -> Iterator[fx.Node]:
        """Yield the dropouts behind a node, the last first."""
        while last is not node:
            yield last
            last = last.all_input_nodes[0]

    def _move(self, node: fx.Node, layer: nn.Module | None, source: fx.Node) -> None:
        if layer is not None:
            self.names.add(str(node.target))
        self.items.append(Copy(node, layer))
        self.codes[node] = self.codes[source]
        self._keep_fine(node, source)
