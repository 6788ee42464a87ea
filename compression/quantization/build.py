"""A plan and the parameters of its codes -> the network."""

from collections.abc import Mapping
from typing import Any

from torch import fx, nn

from compression.affine import QParams
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
    Return,
    Scaling,
)


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
        self.constants = plan.constants
        self.qparams = {node: qparams[name] for node, name in plan.codes.items()}
        self.graph = fx.Graph()
        self.modules: dict[str, nn.Module] = {}
        self.values: dict[fx.Node, Any] = {}
        self.reals: dict[fx.Node, fx.Node] = {}  # of what the network returns, by the new value

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
            case Call():
                self.values[item.node] = self._called(item, self._module(item))

    def _called(self, item: Call, module: nn.Module) -> fx.Node:
        self.modules[item.name] = module
        inputs = [i for i in item.inputs if i not in self.constants]
        sizes = item.sizes if isinstance(item, Move | Interpolation) else ()
        given = fx.node.map_arg((*inputs, *sizes), self.values.__getitem__)
        call = self.graph.call_module(item.name, given)
        call.meta["place"] = place_of(item.node)
        return call

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
        before = [self.qparams[node] for node in item.inputs]
        after: Any = self.qparams.get(item.node)  # none for a last layer only
        held = {i: self.constants[n] for i, n in enumerate(item.inputs) if n in self.constants}
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
                return q.QuantizedLayerNorm(norm, before[0], after, name)
            case Attention(attended=how):
                return q.QuantizedAttention(
                    before, after, scale=how.scale, mask=how.mask, causal=how.causal
                )
            case Float(operator=operator):
                return q.InFloat(operator, before, after)
            case Product():
                return q.QuantizedProduct(before, after, held)
            case Move(function=function):
                return q.MovedCodes(function)
            case Interpolation(resizing=resizing):
                return q.QuantizedInterpolation(resizing, before[0], after)
            case Scaling(factor=factor, offset=offset):
                return q.QuantizedAffine(before[0], after, factor=factor, offset=offset)
        raise AssertionError(item)
