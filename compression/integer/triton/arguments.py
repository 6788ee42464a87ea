"""What the kernels are given of a step: its operands, its window, and its addresses' alignment."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.nn import functional as F

from compression.integer.steps import (
    Attention,
    CodesStep,
    DepthwiseWeights,
    Gather,
    Geometry,
    Interpolation,
    Lookup,
    Map,
    Maximum,
    Mean,
    Multiplication,
    Place,
    Product,
    RealPlace,
    Residual,
    Step,
    Sum,
    Weights,
    Window,
    depthwise_weights,
    is_depthwise,
)

Moved = TypeVar("Moved")


def pixel_bytes(channels: int) -> int:
    """Return the bytes of a pixel: what one load of a thread takes, or a whole number of them."""
    return 4 if channels <= 4 else -(-channels // 16) * 16


@dataclass(frozen=True, slots=True)
class TritonWeights(Weights):
    """A convolution's weights (O, runs, bytes of a run), and where the runs of a window begin.

    Run r is of line r // across. It begins (line // high) back + (line % high) down + (r % across)
    right from the window's corner. `depth` counts the products of a sum, `input_bytes` the codes of an
    image, both without padding.
    """

    weights: Tensor
    across: int
    high: int
    back: int
    down: int
    right: int
    depth: int
    input_bytes: int


def triton_weights(
    weights: Tensor, groups: int, window: Window, inputs: Geometry, _: list[int]
) -> tuple[Weights, None] | None:
    """Return weights (O, I, D, H, W) as a kernel reads them, row by row; None for several groups."""
    if is_depthwise(weights, groups, inputs):
        return depthwise_weights(weights, window, inputs), None
    if groups > 1:
        return None
    runs, length = window.runs(inputs, weights.shape[1])
    a_tap = len(runs) * length // math.prod(window.size)
    wide = F.pad(weights.movedim(1, -1), (0, a_tap - weights.shape[1]))
    packed = TritonWeights(
        weights=wide.reshape(len(weights), len(runs), length),
        across=len(runs) // (window.size[0] * window.size[1]),
        high=window.size[1],
        back=window.dilation[0] * inputs.frame,
        down=window.dilation[1] * inputs.row,
        right=window.dilation[2] * inputs.pixel,
        depth=weights[0].numel(),
        input_bytes=math.prod(inputs.sides),
    )
    return packed, None


@dataclass(frozen=True, slots=True)
class CodesWindow:
    """What the pointwise kernel does with a step's window.

    `filters` are weights, bias and multiplier; without `taps` the window is one pixel.
    """

    kind: str
    taps: Tensor | None = None
    filters: tuple[Tensor, Tensor, Tensor] | None = None
    across: int = 1
    pixel: int = 0
    scale: float = 1.0


def codes_window(step: CodesStep) -> CodesWindow:
    """Return the window of a step that multiplies no matrices."""
    match step:
        case Product(weights=DepthwiseWeights() as own):
            filters = own.weights, step.bias, step.multiplier
            return CodesWindow("depthwise", own.taps, filters)
        case Maximum():
            return CodesWindow("maximum", step.taps)
        case Mean():
            return CodesWindow(
                "mean", step.rows, across=step.across, pixel=step.pixel, scale=step.scale
            )
        case Map():
            return CodesWindow("map", scale=step.scale)
        case Multiplication():
            return CodesWindow("multiplication", scale=step.scale)
        case Lookup():
            return CodesWindow("lookup", filters=(step.table,) * 3)
        case Interpolation():
            weights = (step.weights,) * 3
            return CodesWindow(
                "interpolation", step.taps, weights, pixel=step.across, scale=step.scale
            )
        case Gather():
            return CodesWindow(
                "gather", step.taps.flatten(), pixel=step.channels * (step.taps.ndim - 1)
            )
    raise TypeError(f"{step.name}: no kernel for {type(step).__name__}")


def operand(step: CodesStep) -> Place | None:
    """Return the second operand: what is added, or the other factor."""
    return step.other if isinstance(step, Multiplication) else step.residual


def memories(step: CodesStep, outputs: Tensor) -> tuple[Tensor, Tensor]:
    """Return the memory of the second operand, or what stands for it, and of the output."""
    output = step.output.memory if isinstance(step.output, Place) else outputs
    other = operand(step)
    return output if other is None else other.memory, output


def offsets(step: CodesStep) -> list[Any]:
    """Return the offsets of input, second operand and output, and then their strides."""
    places = (step.input, operand(step) or step.input, step.output)
    return [p.offsets for p in places] + [p.stride for p in places]


def residual(step: CodesStep) -> dict[str, Any]:
    """Return the second operand's zero, and the ratio at which it is added."""
    other = operand(step)
    if other is None:
        return {"residual_zero": 0, "residual_ratio": 0.0}
    ratio = other.ratio if isinstance(other, Residual) else 0.0
    return {"residual_zero": other.zero, "residual_ratio": ratio}


def flags(step: CodesStep) -> dict[str, bool]:
    """Return what the kernel is compiled for."""
    real = isinstance(step.output, RealPlace)
    return {"HAS_RESIDUAL": step.residual is not None, "REAL": real}


def bounds(step: Step) -> dict[str, Any]:
    """Return the output's zero, and the bounds of its codes less that."""
    zero = step.output.zero if isinstance(step.output, Place) else 0
    low, high = step.bounds
    return {"output_zero": zero, "lowest": float(low - zero), "highest": float(high - zero)}


def to_device(value: Moved, device: torch.device) -> Moved:
    """Return a tensor on `device`, or a dataclass whose tensors are there."""
    if isinstance(value, Tensor):
        return value.to(device).contiguous()  # type: ignore[return-value]
    if not is_dataclass(value) or isinstance(value, type):
        return value
    return replace(
        value, **{f.name: to_device(getattr(value, f.name), device) for f in fields(value)}
    )


def read_places(step: Step) -> Iterator[Tensor | int]:
    """Yield what the addresses of the codes that a step reads are sums of."""
    if not isinstance(step, CodesStep):
        return
    yield from (step.input.offsets, step.input.stride)
    match step:
        case Product(weights=TritonWeights() as own):
            yield from (own.back, own.down, own.right)
        case (
            Product(weights=DepthwiseWeights(taps=taps))
            | Maximum(taps=taps)
            | Interpolation(taps=taps)
        ):
            yield taps
        case Mean():
            yield from (step.rows, step.pixel)
        case Sum(third=Residual() as third):
            yield from (third.offsets, third.stride)
        case Attention(key=key, value=value):
            yield from (key.offsets, key.stride, value.offsets, value.stride)


def written_places(step: Step) -> Iterator[Tensor | int]:
    """Yield the same of what a step writes, and of its second operand."""
    yield from (step.output.offsets, step.output.stride)
    if isinstance(step, Sum) and step.rest is not None:
        yield from (step.rest.offsets, step.rest.stride)
    other = operand(step) if isinstance(step, CodesStep) else None
    if other is not None:
        yield from (other.offsets, other.stride)


def alignment(places: Iterator[Tensor | int]) -> int:
    """Return the largest power of two up to 16 that divides all of these."""
    numbers = [p.tolist() if isinstance(p, Tensor) else [p] for p in places]
    return math.gcd(16, *(n for group in numbers for n in group))


def power_of_two(number: int) -> int:
    """Return the first power of two that is not smaller."""
    return 1 << (number - 1).bit_length()
