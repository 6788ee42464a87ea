"""A plan and the parameters of its codes -> the network."""

from collections.abc import Iterator, Mapping
from typing import Any

from torch import fx, nn

from compression.affine import QParams, quantize
from compression.graph import place_of
from compression.quantization import modules as q
from compression.quantization.layer import QuantizedLayer
from compression.quantization.plan import (
    Alias,
    Attention,
    Call,
    Clamp,
    Copy,
    Float,
    Function,
    Input,
    Interpolation,
    Item,
    Join,
    Layer,
    MaxPool,
    Mean,
    Move,
    Norm,
    Output,
    Plan,
    Product,
    Real,
    Repeat,
    Return,
    Scaling,
)
from compression.quantization.sums import rest_of


def build_network(plan: Plan, qparams: Mapping[str, QParams]) -> fx.GraphModule:
    """Return the network of `plan`, its weights those that the float layers have by now.

    `qparams` are those of Plan.qparams. Raises CompressionError with the layer's name where weights,
    bias and ranges do not go together in int32 and float32.
    """
    builder = _Builder(plan, qparams)
    for item in plan.items:
        builder.add(item)
    return fx.GraphModule(builder.modules, builder.graph).eval()


class _Builder:
    """Makes modules and their calls item by item."""

    def __init__(self, plan: Plan, qparams: Mapping[str, QParams]) -> None:
        self.plan, self.constants = plan, plan.constants
        self.qparams = {node: qparams[name] for node, name in plan.codes.items()}
        self.graph = fx.Graph()
        self.modules: dict[str, nn.Module] = {}
        self.values: dict[fx.Node, Any] = {}
        self.reals: dict[fx.Node, fx.Node] = {}  # of what the network returns, by the new value
        self.rests: dict[fx.Node, fx.Node] = {}  # by the new value: what its rounding left

    def add(self, item: Item) -> None:
        """Make one item."""
        match item:
            case Alias(node, source):
                self.values[node] = self.values[source]
            case Copy(node, module):
                if module is not None:
                    self.modules[str(node.target)] = module
                copied = self.graph.node_copy(node, lambda n: self.values[n])
                if copied.op == "call_method" and copied.target == "view":
                    copied.target = "reshape"  # codes may lie in another order than numbers did
                self.values[node] = copied
            case Input(node):
                self.values[node] = self.graph.placeholder(node.name)
                self.values[node] = self._called(item, q.Quantize(self.qparams[node]))
            case Output(node):
                value = self.values[node]
                dequantize = q.Dequantize(self.qparams[node]) if item.name else None
                self.reals[value] = value if dequantize is None else self._called(item, dequantize)
            case Return(node):
                self.graph.output(self._returned(node.args[0]))
            case Real(module=module):
                self.values[item.node] = self._called(item, module)
            case Call():
                module = self._module(item)
                self.values[item.node] = self._called(item, module)
                if item.node in self.plan.fine:
                    self._keep_rest(item, module)

    def _called(self, item: Call, module: nn.Module) -> fx.Node:
        sizes = item.sizes if isinstance(item, Move | Interpolation | Real) else ()
        given = fx.node.map_arg(sizes, self.values.__getitem__)
        return self._call(item, item.name, module, (*self._read(item), *given))

    def _call(self, item: Call, name: str, module: nn.Module, given: tuple[Any, ...]) -> fx.Node:
        self.modules[name] = module
        call = self.graph.call_module(name, given)
        call.meta["place"] = place_of(item.node)
        return call

    def _read(self, item: Call) -> Iterator[fx.Node]:
        """Yield the values that an item reads, constants left out."""
        for node, is_rest in self._operands(item):
            if is_rest:
                yield self._rest(self.values[node])
            elif node not in self.constants:
                yield self.values[node]

    def _rest(self, value: fx.Node) -> fx.Node:
        """Return what the rounding of a value left, moved as the value is."""
        if value not in self.rests:
            source, *sizes = value.all_input_nodes
            given = {source: self._rest(source)} | {size: size for size in sizes}
            self.rests[value] = self.graph.node_copy(value, given.__getitem__)
        return self.rests[value]

    def _keep_rest(self, item: Call, module: nn.Module) -> None:
        """Have what the rounding of a sum or concatenation leaves computed, too."""
        assert isinstance(module, q.QuantizedJoin)
        value = self.values[item.node]
        rest = q.QuantizedRest(module, self._meanings(item), self.qparams[item.node])
        given = (value, *self._read(item))
        self.rests[value] = self._call(item, f"{item.name}_rest", rest, given)

    def _operands(self, item: Call) -> Iterator[tuple[fx.Node, bool]]:
        """Yield what an item reads in its order, and whether it is what the rounding of that left."""
        fine = self.plan.fine_input(item)
        for place, node in enumerate(item.inputs):
            yield node, False
            if place == fine:
                yield node, True

    def _meanings(self, item: Call) -> list[QParams]:
        """Return the parameters of what an item reads, in its order."""
        read = ((self.qparams[node], is_rest) for node, is_rest in self._operands(item))
        return [rest_of(qparams) if is_rest else qparams for qparams, is_rest in read]

    def _returned(self, result: Any) -> Any:
        """Return the network's result in its own structure, of real numbers."""

        def real(node: fx.Node) -> fx.Node:
            if node in self.values:
                return self.reals[self.values[node]]
            for part in node.all_input_nodes:
                containers[part] = real(part)
            return self.graph.node_copy(node, containers.__getitem__)

        containers: dict[fx.Node, fx.Node] = {}
        return fx.node.map_arg(result, real)

    def _module(self, item: Call) -> nn.Module:
        """Return what computes an item on codes."""
        before, operands = self._meanings(item), enumerate(self._operands(item))
        held = {i: self.constants[node] for i, (node, _) in operands if node in self.constants}
        after: Any = self.qparams.get(item.node)  # none for a last layer only
        match item:
            case Layer(node=node, layer=layer):
                name = str(node.target)
                return QuantizedLayer(layer, before[0], after, name, residual=before[1:])
            case Join(dim=dim):
                return q.QuantizedJoin(before, after, dim=dim, held=held)
            case Clamp(bounds=bounds):
                return q.ClampCodes(before[0], *bounds)
            case MaxPool(pool=pool):
                return q.OnCodes(pool)
            case Mean(mean=mean):
                return q.QuantizedMean(mean, before[0], after)
            case Function(function=function):
                return q.QuantizedFunction(function, before[0], after)
            case Norm(norm=norm, name=name):
                rest = before[1] if len(before) > 1 else None
                return q.QuantizedLayerNorm(norm, before[0], after, name, rest=rest)
            case Attention(attended=how):
                return q.QuantizedAttention(
                    before, after, scale=how.scale, mask=how.mask, causal=how.causal
                )
            case Float(operator=operator):
                return q.InFloat(operator, before, after)
            case Repeat(repeated=(value, axis)):
                codes = quantize(value.to(after.scale.device), after)
                return q.RepeatedCodes(codes, axis, after)
            case Product():
                return q.QuantizedProduct(before, after, held)
            case Move(function=function):
                return q.MovedCodes(function)
            case Interpolation(resizing=resizing):
                return q.QuantizedInterpolation(resizing, before[0], after)
            case Scaling(factor=factor, offset=offset):
                return q.QuantizedAffine(before[0], after, factor=factor, offset=offset)
        raise AssertionError(item)
