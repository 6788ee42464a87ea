"""The oneDNN executor: a statically quantized network on the CPU's integer kernels."""

import math
from functools import cache
from typing import Any

import torch
from torch import Tensor, fx, nn

from compression.errors import CompressionError, UnsupportedTypeError
from compression.integer.agreement import CodesOf
from compression.integer.codes import INT32_LIMIT, LARGEST
from compression.integer.onednn import layers as k
from compression.integer.onednn import pointwise as p
from compression.integer.onednn.aliases import Aliases
from compression.integer.onednn.alone import LayersAlone
from compression.integer.shapes import MOVING, Move, shapes_and_moves
from compression.integer.windows import each, padding_of
from compression.modes import ExecutorModel, in_own_precision
from compression.quantization import StaticQuantizedModel
from compression.quantization import modules as q
from compression.quantization.ends import containers, returned, structured

KERNELS = ("onednn::qconv2d_pointwise", "onednn::qlinear_pointwise")
"""The kernels that multiply codes, as torch's profiler names them."""
CHUNK_BYTES = 2**24
"""The largest tensor that a chunk of a batch may make: from 32 MiB on glibc maps and clears fresh
pages at every allocation, which took a sixth of the time of 64 images at 224x224."""


class IntegerModel(ExecutorModel):
    """Runs int8 codes from the first layer to the last on integer kernels.

    `stayed` names the layers that have no integer kernel and are computed in float32; of a batch
    `chunk` images are computed at a time.
    """

    def __init__(
        self,
        network: fx.GraphModule,
        stayed: tuple[str, ...],
        chunk: int,
        inputs: list[int],
        outputs: fx.Graph,
        shapes: dict[fx.Node, list[int]],
    ) -> None:
        """Take over a lowered network; shapes are those of one image.

        It returns the tensors, each once, that the graph `outputs` returns in a structure.
        """
        super().__init__()
        self.network = network
        self.stayed = stayed
        self.chunk = chunk
        self._inputs, self._outputs = torch.Size(inputs), outputs
        self._shapes = {node: shapes[node][1:] for _, node in returned(outputs)}

    def forward(self, inputs: Tensor) -> Any:
        """Return real outputs of real inputs on the CPU, any number of images."""
        if inputs.shape[1:] != self._inputs or inputs.device.type != "cpu" or not inputs.ndim:
            raise CompressionError(
                f"this executor was made for inputs (N, {', '.join(map(str, self._inputs))}) on the "
                f"CPU, found {tuple(inputs.shape)} on {inputs.device}; deploy it for another size"
            )
        if len(inputs) == 0:  # the kernels take no empty operands
            tensors = [torch.empty(0, *shape) for shape in self._shapes.values()]
        else:
            with in_own_precision(inputs):
                parts = [self.network(part) for part in inputs.split(self.chunk)]
            tensors = [
                own[0] if len(own) == 1 else torch.cat(own) for own in zip(*parts, strict=True)
            ]
        return structured(self._outputs, dict(zip(self._shapes, tensors, strict=True)))

    def codes_of(self, _: Tensor) -> CodesOf:
        """Return the function that tells each node's codes, given the reference's own arguments."""
        return LayersAlone(self.network)


@torch.no_grad()
def lower_onednn(
    model: StaticQuantizedModel, example: Tensor, *, fallback: bool = False
) -> IntegerModel:
    """Return `model` on torch's oneDNN kernels, weights packed for inputs shaped like `example`.

    Other batch sizes work, some slower. A layer without an integer kernel for its operands raises
    UnsupportedTypeError with its name; with `fallback` it is computed in float32 and reported.
    """
    shapes, moves = shapes_and_moves(model, example)
    chunk = max(1, CHUNK_BYTES // max(4 * example[0].numel(), *map(math.prod, shapes.values())))
    images = min(chunk, len(example))
    aliases, modules = Aliases(model.network), dict[str, nn.Module]()
    for node in model.network.graph.nodes:
        if node.op == "call_module":
            layer = model.network.get_submodule(str(node.target))
            modules[str(node.target)] = _kernel(layer, node, shapes, aliases, images)
    stayed = [name for name, module in modules.items() if isinstance(module, p.Reference)]
    if stayed and not fallback:
        kinds = {n: type(model.network.get_submodule(n)).__name__ for n in stayed}
        named = ", ".join(f"{n} ({kind})" for n, kind in kinds.items())
        raise UnsupportedTypeError(
            f"no integer kernel for {named}; pass fallback=True to compute it in float32"
        )
    network = fx.GraphModule(modules, _graph(model.network.graph, moves)).eval()
    inputs, outputs = list(example.shape[1:]), model.network.graph
    return IntegerModel(network, tuple(stayed), chunk, inputs, outputs, shapes)


def _graph(reference: fx.Graph, moves: dict[fx.Node, Move]) -> fx.Graph:
    """Return a copy that returns its tensors, each once, in no structure.

    What only views numbers finds them in the order of the reference.
    """
    graph, values = fx.Graph(), dict[fx.Node, fx.Node]()
    ends, outputs = containers(reference), dict.fromkeys(node for _, node in returned(reference))
    for node in reference.nodes:
        if node.op == "output":
            graph.output(tuple(values[output] for output in outputs))
        if node.op == "output" or node in ends:
            continue
        given = values
        move = moves.get(node)
        if move is not None and move.is_view and move.source in node.all_input_nodes:
            in_order = graph.call_method("contiguous", (values[move.source],))
            given = values | {move.source: in_order}
        values[node] = graph.node_copy(node, given.__getitem__)
    return graph


def missing() -> str | None:
    """Say what the machine lacks for the oneDNN executor, None where it can run."""
    if has_integer_kernels("cpu"):
        return None
    return "executor onednn needs a CPU with VNNI or AMX: on this one its products saturate"


def _kernel(
    layer: nn.Module,
    node: fx.Node,
    shapes: dict[fx.Node, list[int]],
    aliases: Aliases,
    images: int,
) -> nn.Module:
    """Return a layer on oneDNN's kernel for its operands, or as the reference executor computes it."""
    operands = [shapes[a] for a in node.args if isinstance(a, fx.Node) and a in shapes]
    match layer:
        case q.Quantize():
            return k.Quantize(layer)
        case q.Dequantize():
            return k.Dequantize(layer)
        case q.RealSum() | q.RealInterpolation():
            return layer
        case _ if any(0 in shape for shape in (*operands, shapes[node])):
            return p.Reference(layer)
        case q.QuantizedLayer():
            keep = len(operands) > 1 and aliases.needed(node.args[1], node)  # type: ignore[arg-type]
            return _product(layer, operands, shapes[node], images, keep_residual=keep)
        case q.OnCodes(function=nn.MaxPool2d() as pool) if _is_max_pool(pool, operands[0]):
            return p.MaxPool(pool)
        case q.QuantizedMean():
            return p.Mean(layer)
        case q.RepeatedCodes():
            return p.Repeated(layer)
        case q.QuantizedRest():
            return p.Rest(layer)
        case q.QuantizedJoin():
            return p.Join(layer)
        case q.ClampCodes():
            return p.Clamp(layer)
        case q.QuantizedFunction():
            return p.Function(layer)
        case _ if type(layer) in MOVING:  # it does not look at the codes
            return layer
        case _:
            return p.Reference(layer)


def _product(
    layer: q.QuantizedLayer,
    operands: list[list[int]],
    outputs: list[int],
    images: int,
    *,
    keep_residual: bool,
) -> nn.Module:
    packed = [images, *operands[0][1:]]
    if _fits(layer) and _is_convolution(layer, operands, outputs):
        return k.Convolution(layer, packed, keep_residual=keep_residual)
    if _fits(layer) and layer.codes.ndim == 2 and all(o == outputs for o in operands[1:]):
        return k.Linear(layer, [math.prod(packed[:-1]), packed[-1]])
    return p.Reference(layer)


def _is_convolution(layer: q.QuantizedLayer, operands: list[list[int]], outputs: list[int]) -> bool:
    """Tell whether the kernel of 2-d convolutions computes `layer` on operands of these shapes."""
    if layer.codes.ndim != 4 or layer.transposed or len(operands[0]) != 4:
        return False
    before, after = padding_of(layer)
    # oneDNN's own correction for zero points is wrong where no tap of a window meets the image.
    sides = zip(operands[0][2:], outputs[2:], layer.codes.shape[2:], strict=True)
    steps = zip(
        each(layer.options["stride"], 2), before, each(layer.options["dilation"], 2), strict=True
    )
    if not all(_meets(*side, *step) for side, step in zip(sides, steps, strict=True)):
        return False
    # A residual lies where the outputs will, as codes.
    summed = len(operands) == 1 or (operands[1] == outputs and layer.output_scale is not None)
    return before == after and summed


def _meets(length: int, outputs: int, size: int, stride: int, padding: int, dilation: int) -> bool:
    """Tell whether each of `outputs` windows of `size` taps has one within `length` pixels."""
    starts = [place * stride - padding for place in range(outputs)]
    return all(any(0 <= a + k * dilation < length for k in range(size)) for a in starts)


def _fits(layer: q.QuantizedLayer) -> bool:
    """Tell whether no sum of products, of the largest codes even, leaves int32."""
    return int(layer.codes.long().abs().flatten(1).sum(1).max()) * LARGEST < INT32_LIMIT


def _is_max_pool(pool: nn.MaxPool2d, shape: list[int]) -> bool:
    return type(pool) is nn.MaxPool2d and len(shape) == 4 and not pool.return_indices


def has_integer_kernels(device: torch.device | str) -> bool:
    """Tell whether `device` multiplies u8 by s8 into int32 exactly: a CPU with VNNI or AMX.

    It is tried, not looked up: on a CPU without them, or where ONEDNN_MAX_CPU_ISA hides them, oneDNN
    adds pairs of products in int16, which saturates (vpmaddubsw of AVX2 and AVX-512).
    """
    return torch.device(device).type == "cpu" and _multiplies_exactly()


@cache
def _multiplies_exactly() -> bool:
    if not torch.backends.mkldnn.is_available():
        return False
    products = [k.largest_products(window) for window in (1, 3)]
    return all(bool((outputs == expected).all()) for outputs, expected in products)
