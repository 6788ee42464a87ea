"""Lowering: a folded float graph, node by node, onto layers that compute on int8 codes."""

import operator
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from compression.affine import QParams, qparams_from_range
from compression.errors import UnsupportedTypeError
from compression.layers import COMPRESSIBLE
from compression.quantization import modules as q
from compression.quantization.calibration import Range

_RELU = {nn.ReLU: None, nn.ReLU6: 6.0, F.relu: None, torch.relu: None, F.relu6: 6.0, "relu": None}
_ADD = {operator.add, operator.iadd, torch.add, "add", "add_"}
_SAME = {nn.Identity, nn.Dropout, nn.Dropout2d, F.dropout, "contiguous"}
_RESHAPE = {nn.Flatten, torch.flatten, "flatten", "view", "reshape", "size", torch.reshape}
_MEAN = {
    nn.AvgPool2d: nn.AvgPool2d,
    nn.AdaptiveAvgPool2d: nn.AdaptiveAvgPool2d,
    F.avg_pool2d: nn.AvgPool2d,
    F.adaptive_avg_pool2d: nn.AdaptiveAvgPool2d,
}
_MAX = {nn.MaxPool2d: nn.MaxPool2d, F.max_pool2d: nn.MaxPool2d, torch.max_pool2d: nn.MaxPool2d}


class Lowering:
    """Rewrites a folded graph; `ranges` holds each node's smallest and largest value, by name.

    An addition is taken into the layer that computes its last operand, where nothing else uses that
    layer's output, and a ReLU into whatever is before it: their values are never rounded between.
    """

    def __init__(self, folded: fx.GraphModule, ranges: Mapping[str, Range] | None) -> None:
        """Prepare to lower `folded`; without ranges, to a network whose state is yet to be loaded."""
        self.folded = folded
        self.ranges = ranges
        self.layers = dict(folded.named_modules())
        self.graph = fx.Graph()
        self.modules: dict[str, nn.Module] = {}
        self.values: dict[fx.Node, Any] = {}
        self.qparams: dict[fx.Node, QParams] = {}
        self.rounded: dict[str, QParams] = {}  # what is rounded, by name
        self.taken: dict[fx.Node, fx.Node] = {}  # a node -> the one that computes it too

    def lower(self) -> fx.GraphModule:
        """Return the network on codes."""
        for node in self.folded.graph.nodes:
            match node.op:
                case "placeholder":
                    self._input(node)
                case "output":
                    self._output(node)
                case _:
                    self._operator(node)
        return fx.GraphModule(self.modules, self.graph).eval()

    def _kind(self, node: fx.Node) -> Any:
        if node.op == "call_module":
            return type(self.layers[str(node.target)])
        return node.target

    def _range(self, node: fx.Node) -> QParams:
        unit = torch.tensor(0.0), torch.tensor(1.0)
        ends = unit if self.ranges is None else self.ranges[node.name]
        self.rounded[node.name] = qparams_from_range(*ends, symmetric=False)
        return self.rounded[node.name]

    def _emit(self, node: fx.Node, name: str, module: nn.Module, *inputs: fx.Node) -> None:
        while name in self.modules:  # one layer called twice has two ranges
            name = f"{name}_again"
        self.modules[name] = module
        self.values[node] = self.graph.call_module(name, tuple(self.values[i] for i in inputs))

    def _input(self, node: fx.Node) -> None:
        self.values[node] = self.graph.placeholder(node.name)
        self.qparams[node] = self._range(node)
        self._emit(node, f"quantize_{node.name}", q.Quantize(self.qparams[node]), node)

    def _output(self, node: fx.Node) -> None:
        result = node.args[0]
        if not isinstance(result, fx.Node):
            raise UnsupportedTypeError("static INT8 needs a network with one tensor as its output")
        if result in self.qparams:
            self._emit(result, "dequantize", q.Dequantize(self.qparams[result]), result)
        self.graph.output(self.values[result])

    def _operator(self, node: fx.Node) -> None:
        layer = self.layers.get(str(node.target)) if node.op == "call_module" else None
        kind = self._kind(node)
        inputs = [a for a in node.all_input_nodes if a in self.qparams]
        name = str(node.target) if layer is not None else node.name
        if node in self.taken:
            self._alias(node, self.taken[node])
        elif kind in _SAME:
            self._alias(node, inputs[0])
        elif layer is not None and isinstance(layer, COMPRESSIBLE):
            self._layer(node, layer, name, inputs[0])
        elif kind in _RELU:
            clamp = q.ClampCodes(self.qparams[inputs[0]], _RELU[kind])
            self._emit(node, node.name, clamp, inputs[0])
            self.qparams[node] = self.qparams[inputs[0]]
        elif kind in _ADD and len(inputs) == 2 and not node.kwargs:
            self._join(node, inputs, dim=None)
        elif kind in (torch.cat, torch.concat):
            dim = node.kwargs.get("dim", node.args[1] if len(node.args) > 1 else 0)
            self._join(node, inputs, dim=int(dim))  # type: ignore[arg-type]
        elif kind in _MAX:
            pool = q.OnCodes(layer or _as_module(_MAX[kind], node))
            self._emit(node, name, pool, inputs[0])
            self.qparams[node] = self.qparams[inputs[0]]
        elif kind in _MEAN or kind in ("mean", torch.mean):
            self._mean(node, layer, kind, name, inputs[0])
        elif kind in _RESHAPE or kind is operator.getitem:
            self._reshape(node, inputs)
        else:
            raise UnsupportedTypeError(
                f"static INT8 does not know the operator {getattr(kind, '__name__', kind)} at "
                f"{node.target}; it knows convolutions, linear layers, batch norm, ReLU, ReLU6, "
                "addition, concatenation, pooling, flatten and dropout"
            )

    def _alias(self, node: fx.Node, source: fx.Node) -> None:
        self.values[node] = self.values[source]
        if source in self.qparams:
            self.qparams[node] = self.qparams[source]

    def _layer(self, node: fx.Node, layer: nn.Module, name: str, inputs: fx.Node) -> None:
        if getattr(layer, "padding_mode", "zeros") != "zeros":
            raise UnsupportedTypeError(f"{name}: static INT8 pads with zeros only")
        operands, end = [inputs], node
        addition = _only_user(node)
        if addition is not None and self._kind(addition) in _ADD and not addition.kwargs:
            others = [a for a in addition.all_input_nodes if a is not node and a in self.qparams]
            if len(others) == 1:  # the other operand is known by now: this layer is the last
                operands, end = [inputs, others[0]], addition
                self.taken[addition] = node
        end = self._take_relu(node, end)
        output = None if all(user.op == "output" for user in end.users) else self._range(end)
        parts = [self.qparams[i] for i in operands]
        module = q.QuantizedLayer(layer, parts[0], output, name, residual=parts[1:])
        self._emit(node, name, module, *operands)
        if output is not None:
            self.qparams[node] = output

    def _join(self, node: fx.Node, inputs: list[fx.Node], *, dim: int | None) -> None:
        operands = inputs if dim is None else list(node.args[0])  # type: ignore[arg-type]
        output = self._range(self._take_relu(node, node))
        parts = [self.qparams[i] for i in operands]
        self._emit(node, node.name, q.QuantizedJoin(parts, output, dim=dim), *operands)
        self.qparams[node] = output

    def _mean(
        self, node: fx.Node, layer: nn.Module | None, kind: Any, name: str, inputs: fx.Node
    ) -> None:
        pool = layer or (_as_module(_MEAN[kind], node) if kind in _MEAN else _Mean(node))
        output = self._range(self._take_relu(node, node))
        self._emit(node, name, q.QuantizedMean(pool, self.qparams[inputs], output), inputs)
        self.qparams[node] = output

    def _reshape(self, node: fx.Node, inputs: list[fx.Node]) -> None:
        args = fx.node.map_arg(node.args, lambda n: self.values[n])
        kwargs = fx.node.map_arg(node.kwargs, lambda n: self.values[n])
        if node.op == "call_module":
            name = str(node.target)
            self.modules[name] = self.layers[name]
        self.values[node] = self.graph.create_node(node.op, node.target, args, kwargs)  # type: ignore[arg-type]
        if inputs and node.target not in ("size", operator.getitem):
            self.qparams[node] = self.qparams[inputs[0]]

    def _take_relu(self, node: fx.Node, end: fx.Node) -> fx.Node:
        """Return the ReLU that alone uses `end`, computed with `node` from now on; or `end`."""
        user = _only_user(end)
        if user is None or self._kind(user) not in _RELU:
            return end
        self.taken[user] = node
        return user


def _only_user(node: fx.Node) -> fx.Node | None:
    users = list(node.users)
    return users[0] if len(users) == 1 else None


def _as_module(kind: Any, node: fx.Node) -> nn.Module:
    options = {k: v for k, v in node.kwargs.items() if k != "input"}
    module: nn.Module = kind(*node.args[1:], **options)
    return module


class _Mean(nn.Module):
    """The mean over fixed dimensions."""

    def __init__(self, node: fx.Node) -> None:
        super().__init__()
        self.args, self.kwargs = node.args[1:], dict(node.kwargs)

    def forward(self, x: Tensor) -> Tensor:
        mean: Any = torch.mean
        means: Tensor = mean(x, *self.args, **self.kwargs)
        return means
