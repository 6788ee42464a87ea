"""Static INT8: calibrate a traced network's activations, then lower it onto integer codes."""

import operator
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from compression.affine import QParams, qparams_from_range
from compression.errors import CompressionError, UnsupportedTypeError
from compression.layers import COMPRESSIBLE, compressible_layers, fold_batch_norm
from compression.quantization import modules as q


class StaticQuantizedModel(nn.Module):
    """A network on int8 codes from its input to its last layer, run by the reference executor.

    The arithmetic is that of integers, carried out in float32: its accuracy is that of INT8, its
    speed is not (see modules.py).
    """

    simulated = True

    def __init__(self, network: fx.GraphModule) -> None:
        """Take over a lowered network."""
        super().__init__()
        self.network = network

    def forward(self, inputs: Tensor) -> Tensor:
        """Return real logits of real inputs."""
        outputs: Tensor = self.network(inputs)
        return outputs


def quantize_static(
    model: nn.Module, calibration: Tensor | Iterable[Tensor]
) -> StaticQuantizedModel:
    """Return `model` as an INT8 network: batch norm folded, int8 weights and activations.

    `calibration` is one batch of prepared inputs or several; min and max over all of them give the
    activations' ranges. Knows convolutions, linear layers, ReLU and ReLU6, additions, concatenation,
    pooling, flatten and dropout; another operator raises UnsupportedTypeError with its name.
    Weights symmetric per channel, activations affine per tensor (Jacob et al. 2018, arXiv:1712.05877).
    """
    compressible_layers(model)
    folded = fold_batch_norm(model)
    batches = [calibration] if isinstance(calibration, Tensor) else calibration
    observer = _Observer(folded)
    device = next(model.parameters()).device
    with torch.no_grad():
        for batch in batches:
            if len(batch):
                observer.run(batch.to(device))
    if not observer.ranges:
        raise CompressionError("the calibration set is empty: pass some training images' inputs")
    return StaticQuantizedModel(_Lowering(folded, observer.ranges).lower())


def empty_static(model: nn.Module) -> StaticQuantizedModel:
    """Return the INT8 network of `model`'s architecture, its ranges still to be loaded."""
    return StaticQuantizedModel(_Lowering(fold_batch_norm(model), None).lower())


Range = tuple[Tensor, Tensor]


class _Observer(fx.Interpreter):
    """Runs a network and keeps the smallest and largest value of each node."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.ranges: dict[str, Range] = {}

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if isinstance(value, Tensor) and value.is_floating_point() and n.op != "output":
            low, high = value.amin().cpu(), value.amax().cpu()
            if n.name in self.ranges:
                before = self.ranges[n.name]
                low, high = torch.minimum(low, before[0]), torch.maximum(high, before[1])
            self.ranges[n.name] = low, high
        return value


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


class _Lowering:
    """Rewrites a folded graph node by node; `qparams` holds what each value's codes mean."""

    def __init__(self, folded: fx.GraphModule, ranges: dict[str, Range] | None) -> None:
        self.folded = folded
        self.ranges = ranges
        self.layers = dict(folded.named_modules())
        self.graph = fx.Graph()
        self.modules: dict[str, nn.Module] = {}
        self.values: dict[fx.Node, Any] = {}
        self.qparams: dict[fx.Node, QParams] = {}
        self.taken: set[fx.Node] = set()  # a ReLU that the layer before it has taken in

    def lower(self) -> fx.GraphModule:
        for node in self.folded.graph.nodes:
            match node.op:
                case "placeholder":
                    self._input(node)
                case "output":
                    self._output(node)
                case _:
                    self._operator(node)
        lowered = fx.GraphModule(self.modules, self.graph)
        return lowered.eval()

    def _range(self, node: fx.Node) -> QParams:
        if self.ranges is None:
            return qparams_from_range(torch.tensor(0.0), torch.tensor(1.0), symmetric=False)
        return qparams_from_range(*self.ranges[node.name], symmetric=False)

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
        kind: Any = type(layer) if layer is not None else node.target
        inputs = [a for a in node.all_input_nodes if a in self.qparams]
        name = str(node.target) if layer is not None else node.name
        if node in self.taken or kind in _SAME:
            self._alias(node, inputs[0])
        elif layer is not None and isinstance(layer, COMPRESSIBLE):
            self._layer(node, layer, name, inputs[0])
        elif kind in _RELU:
            clamp = q.ClampCodes(self.qparams[inputs[0]], _RELU[kind])
            self._emit(node, node.name, clamp, inputs[0])
            self.qparams[node] = self.qparams[inputs[0]]
        elif kind in _ADD and len(inputs) == 2:
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
                f"{node.target}; it knows convolutions, linear layers, ReLU, ReLU6, addition, "
                "concatenation, pooling, flatten and dropout"
            )

    def _alias(self, node: fx.Node, source: fx.Node) -> None:
        self.values[node], self.qparams[node] = self.values[source], self.qparams[source]

    def _layer(self, node: fx.Node, layer: nn.Module, name: str, inputs: fx.Node) -> None:
        if getattr(layer, "padding_mode", "zeros") != "zeros":
            raise UnsupportedTypeError(f"{name}: static INT8 pads with zeros only")
        last = all(user.op == "output" for user in node.users)
        output = None if last else self._range(self._behind(node))
        self._emit(node, name, q.QuantizedLayer(layer, self.qparams[inputs], output, name), inputs)
        if output is not None:
            self.qparams[node] = output

    def _join(self, node: fx.Node, inputs: list[fx.Node], *, dim: int | None) -> None:
        operands = inputs if dim is None else list(node.args[0])  # type: ignore[arg-type]
        output = self._range(self._behind(node))
        parts = [self.qparams[i] for i in operands]
        self._emit(node, node.name, q.QuantizedJoin(parts, output, dim=dim), *operands)
        self.qparams[node] = output

    def _mean(
        self, node: fx.Node, layer: nn.Module | None, kind: Any, name: str, inputs: fx.Node
    ) -> None:
        pool = layer or (_as_module(_MEAN[kind], node) if kind in _MEAN else _Mean(node))
        output = self._range(self._behind(node))
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

    def _behind(self, node: fx.Node) -> fx.Node:
        """Return the node whose range the codes get: the ReLU that alone uses `node`, or itself."""
        users = list(node.users)
        if len(users) == 1:
            layer = self.layers.get(str(users[0].target)) if users[0].op == "call_module" else None
            kind: Any = type(layer) if layer is not None else users[0].target
            if kind in _RELU:
                self.taken.add(users[0])
                return users[0]
        return node


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
