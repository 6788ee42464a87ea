"""The oneDNN executor: a statically quantized network on the CPU's integer kernels."""

import math
from functools import cache

import torch
from torch import Tensor, fx, nn

from compression.errors import UnsupportedTypeError
from compression.integer import kernels as k
from compression.integer.shapes import shapes_of
from compression.quantization import StaticQuantizedModel
from compression.quantization import modules as q

CHUNK_BYTES = 2**24
"""The largest tensor that a chunk of a batch may make: from 32 MiB on glibc maps and clears fresh
pages at every allocation, which took a sixth of the time of 64 images at 224x224."""


class IntegerModel(nn.Module):
    """Runs int8 codes from the first layer to the last on integer kernels.

    `stayed` names the layers that have no integer kernel and are computed in float32; of a batch
    `chunk` images are computed at a time.
    """

    simulated = False

    def __init__(self, network: fx.GraphModule, stayed: tuple[str, ...], chunk: int) -> None:
        """Take over a lowered network."""
        super().__init__()
        self.network = network
        self.stayed = stayed
        self.chunk = chunk

    def forward(self, inputs: Tensor) -> Tensor:
        """Return real logits of real inputs."""
        if len(inputs) <= self.chunk:
            outputs: Tensor = self.network(inputs)
            return outputs
        return torch.cat([self.network(part) for part in inputs.split(self.chunk)])


def lower_onednn(
    model: StaticQuantizedModel, example: Tensor, *, fallback: bool = False
) -> IntegerModel:
    """Return `model` on torch's oneDNN kernels, weights packed for inputs shaped like `example`.

    Other batch sizes work, some slower. A layer without an integer kernel raises
    UnsupportedTypeError with its name; with `fallback` it is computed in float32 and reported.
    """
    shapes = shapes_of(model, example[:1])
    chunk = max(1, CHUNK_BYTES // max(4 * example[0].numel(), *map(math.prod, shapes.values())))
    for shape in shapes.values():
        shape[0] *= min(chunk, len(example))
    graph, modules, stayed = fx.Graph(), dict[str, nn.Module](), list[str]()
    values: dict[fx.Node, fx.Node] = {}
    position = {node: i for i, node in enumerate(model.network.graph.nodes)}
    for node in model.network.graph.nodes:
        if node.op == "call_module":
            name = str(node.target)
            layer = model.network.get_submodule(name)
            modules[name] = _lowered(layer, node, shapes, position)
            if isinstance(modules[name], k.Reference):
                stayed.append(name)
        values[node] = graph.node_copy(node, lambda n: values[n])
    if stayed and not fallback:
        kinds = {n: type(model.network.get_submodule(n)).__name__ for n in stayed}
        named = ", ".join(f"{n} ({kind})" for n, kind in kinds.items())
        raise UnsupportedTypeError(
            f"no integer kernel for {named}; pass fallback=True to compute it in float32"
        )
    return IntegerModel(fx.GraphModule(modules, graph).eval(), tuple(stayed), chunk)


def _lowered(
    layer: nn.Module,
    node: fx.Node,
    shapes: dict[fx.Node, list[int]],
    position: dict[fx.Node, int],
) -> nn.Module:
    match layer:
        case q.QuantizedLayer() if layer.codes.ndim == 4 and not layer.transposed:
            residual = node.args[1] if len(node.args) > 1 else None
            keep = isinstance(residual, fx.Node) and (
                residual.op != "call_module"
                or any(position[user] > position[node] for user in residual.users)
                or residual is node.args[0]
            )
            return k.Convolution(layer, shapes[node.args[0]], keep_residual=keep)  # type: ignore[index]
        case q.QuantizedLayer() if layer.codes.ndim == 2 and layer.residual_scale is None:
            return k.Linear(layer, shapes[node.args[0]])  # type: ignore[index]
        case q.Quantize():
            return k.Quantize(layer)
        case q.Dequantize():
            return k.Dequantize(layer)
        case q.OnCodes(function=nn.MaxPool2d() as pool):
            return k.MaxPool(pool)
        case q.QuantizedMean():
            return k.Mean(layer)
        case q.QuantizedJoin():
            return k.Join(layer)
        case q.ClampCodes():
            return k.Clamp(layer)
        case q.QuantizedLayer() | q.OnCodes():
            return k.Reference(layer)
        case _:  # flatten and the like do not look at the codes
            return layer


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
    found = [k.largest_products(window) for window in (1, 3)]
    return all(bool((outputs == expected).all()) for outputs, expected in found)
