"""Do a step's operands lie in memory as the step would read them?"""

from dataclasses import replace

from torch import Tensor, fx, nn

from compression.integer.steps.axes import DIMS, is_by_channel, spatial
from compression.integer.steps.geometry import Geometry
from compression.integer.steps.layout import Layout, Value
from compression.integer.steps.readings import NO_BORDER
from compression.integer.steps.target import Target
from compression.quantization import modules as q

ALONE = [1] * DIMS
"""The sides of what is the same for each pixel."""


def misplaced_operand(layout: Layout, node: fx.Node, layer: nn.Module) -> str | None:
    """Say what of the operands of `node` no step can read, None where all can be read.

    A layer reads its channels where they lie side by side; what is added must have the shape of the
    sum.
    """
    misread = layout.misread(node)
    if misread is not None:
        shape = layout.shapes[misread]
        return f" on the last dimension of {shape[1:]}" if _is_linear(layer) else f" on {shape[1:]}"
    if isinstance(layer, q.QuantizedProduct):
        return _misplaced_factor(layout, node, layer)
    for source in _summands(layout, node, layer):
        if layout.shapes[source] != layout.shapes[node]:
            return f" that adds {layout.shapes[source][1:]} to {layout.shapes[node][1:]}"
    return None


def _is_linear(layer: nn.Module) -> bool:
    return isinstance(layer, q.QuantizedLayer) and layer.linear


def _misplaced_factor(layout: Layout, node: fx.Node, layer: q.QuantizedProduct) -> str | None:
    """Say what no step can multiply: a factor is as large as the product, or a number per channel."""
    outputs, rank, axis = layout.spatial(node), len(layout.shapes[node]), layout.axis(node)

    def constant(codes: Tensor) -> list[int]:
        wide = [*[1] * (rank - codes.ndim), *codes.shape]
        return _laid(wide, layout.shapes[node], axis) if len(wide) == rank else wide

    shapes = [list(s) for s in layer.whole(_shapes(layout, node), constant)]
    held = [[*[1] * (rank - len(shape)), *shape] for shape in shapes]
    sides = [spatial(shape, axis) for shape in held if len(shape) == rank]
    if (
        len(sides) == 2
        and outputs in sides
        and all(s in (outputs, [outputs[0], *ALONE]) for s in sides)
        and all(len(layout.shapes[a]) == rank for a in node.all_input_nodes)
    ):
        return None
    return f" that multiplies {' by '.join(str(shape[1:]) for shape in held)}"


def _shapes(layout: Layout, node: fx.Node) -> list[list[int]]:
    return [layout.shapes[a] for a in layout.operands(node)]


def _summands(layout: Layout, node: fx.Node, layer: nn.Module) -> list[fx.Node]:
    read = layout.operands(node)
    if isinstance(layer, q.QuantizedLayer):
        return read[1:]
    return read if isinstance(layer, q.QuantizedJoin) and layer.dim is None else []


def values_read(
    layout: Layout,
    node: fx.Node,
    layer: q.QuantizedJoin | q.QuantizedProduct,
    target: Target,
    *,
    broadcast: bool,
) -> list[Value]:
    """Return where the operands of a layer lie; constants `broadcast` to it or as they are read."""
    shape, axis = layout.shapes[node], layout.axis(node)

    def held(codes: Tensor) -> Value:
        laid = [*[1] * (len(shape) - codes.ndim), *codes.shape]
        if isinstance(layer, q.QuantizedProduct):
            laid = _laid(laid, shape, axis)
        return constant(layout, codes.broadcast_to(shape if broadcast else laid), axis, target)

    sources = node.args[1:] if isinstance(layer, q.QuantizedRest) else node.args
    found = layer.whole([layout.read(node, source) for source in sources], held)
    zeros = [target.zero(zero) for zero in layer.input_zero_points]
    return [
        replace(value, geometry=replace(value.geometry, zero=zero))
        for value, zero in zip(found, zeros, strict=True)
    ]


def _laid(constant: list[int], shape: list[int], axis: int) -> list[int]:
    """Return in which shape a constant factor is laid out: a number per channel, or as the product."""
    return constant if spatial(constant, axis) == [spatial(shape, axis)[0], *ALONE] else shape


def constant(layout: Layout, codes: Tensor, axis: int, target: Target, zero: int = 0) -> Value:
    """Return where codes lie that are the same for each image; `zero` is that of the real number 0."""
    channels, frames, height, width = spatial(list(codes.shape), axis)
    rows = codes.movedim(1, -1) if is_by_channel(list(codes.shape), axis) else codes
    pixel = layout.pixel(channels)
    geometry = Geometry(channels, frames, height, width, NO_BORDER, zero, pixel)
    memory = layout.buffers.alone(geometry)
    numbers = (rows.reshape(-1, channels).cpu().short() + target.offset).to(memory.dtype)
    memory[: geometry.stride].view(-1, pixel)[:, :channels] = numbers.to(memory.device)
    return Value(geometry, memory, 0)
