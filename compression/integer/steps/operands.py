"""Do a step's operands lie in memory as the step would read them?"""

from collections.abc import Sequence
from typing import Any

from torch import fx, nn

from compression.integer.steps.layout import Layout
from compression.quantization import modules as q


def misplaced_operand(layout: Layout, node: fx.Node, layer: nn.Module) -> str | None:
    """Say what of the operands of `node` no step can read, None where all can be read.

    A flattened map keeps its memory, in which only a linear layer and the real output find their way;
    what is added must have the shape of the sum.
    """
    for source in _pixel_operands(node, layer):
        if layout.spatial(source) != layout.sides(source):
            return f" on a flattened {layout.sides(source)}"
    if isinstance(layer, q.QuantizedLayer) and layer.linear:
        shape = layout.shapes[node.args[0]]  # type: ignore[index]
        if len(shape) != 2:
            return f" on the last dimension of {shape[1:]}"
    if isinstance(layer, q.QuantizedProduct):
        return _misplaced_factor(layout, node)
    for source in _summands(node, layer):
        if layout.shapes[source] != layout.shapes[node]:
            return f" that adds {layout.shapes[source][1:]} to {layout.shapes[node][1:]}"
    return None


def _misplaced_factor(layout: Layout, node: fx.Node) -> str | None:
    """Say what no step can multiply: a factor is as large as the product, or a number per channel."""
    outputs = layout.spatial(node)
    sides: list[list[int]] = [layout.spatial(a) for a in node.args]  # type: ignore[arg-type]
    ranks = {len(layout.shapes[a]) for a in (*node.args, node)}  # type: ignore[index]
    if (
        len(ranks) == 1
        and outputs in sides
        and all(s in (outputs, [outputs[0], 1, 1]) for s in sides)
    ):
        return None
    shapes = " by ".join(str(layout.shapes[a][1:]) for a in node.args)  # type: ignore[index]
    return f" that multiplies {shapes}"


def _pixel_operands(node: fx.Node, layer: nn.Module) -> Sequence[Any]:
    """Return the operands that are read pixel by pixel."""
    if isinstance(layer, q.Quantize | q.Dequantize):
        return []
    linear = isinstance(layer, q.QuantizedLayer) and layer.linear
    operands = node.args[1:] if linear else node.args
    return operands[:1] if isinstance(layer, q.QuantizedInterpolation) else [*operands]


def _summands(node: fx.Node, layer: nn.Module) -> list[Any]:
    if isinstance(layer, q.QuantizedLayer):
        return list(node.args[1:])
    return list(node.args) if isinstance(layer, q.QuantizedJoin) and layer.dim is None else []
