"""`struct step` of step.h as Python sees it, and a step written as one."""

import ctypes
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from compression.integer.codes import unsigned
from compression.integer.native.chunks import Pace
from compression.integer.native.depthwise import NativeDepthwise, in_blocks
from compression.integer.native.packing import BLOCK, GroupedWeights, NativeWeights
from compression.integer.steps import (
    Attention,
    CodesStep,
    Gather,
    Interpolation,
    Lookup,
    Map,
    Maximum,
    Mean,
    Multiplication,
    Norm,
    Place,
    Product,
    Quantize,
    RealPlace,
    Step,
    Sum,
    Weights,
)

FIELDS = (
    ("const uint8_t *", ("input",)),
    ("void *", ("output",)),
    ("const uint8_t *", ("residual",)),
    ("const int8_t *", ("weights",)),
    ("const int32_t *", ("bias",)),
    ("const float *", ("multiplier",)),
    ("const int32_t *", ("input_offsets", "output_offsets", "residual_offsets", "run_offsets")),
    ("const struct band *", ("bands",)),
    ("const float *", ("shift",)),
    ("const uint8_t *", ("value",)),
    ("const int32_t *", ("value_offsets", "mask")),
    ("void *", ("rest",)),
    ("const int32_t *", ("rest_offsets",)),
    ("int64_t", ("rest_stride", "value_stride", "masks")),
    ("int64_t", ("input_stride", "output_stride", "residual_stride", "width", "plane")),
    (
        "int32_t",
        ("kind", "pixels", "channels", "runs", "groups", "band_count", "slice", "slice_input"),
    ),
    (
        "int32_t",
        (
            *("input_zero", "residual_zero", "value_zero", "rest_zero", "output_zero"),
            *("low", "high", "real", "at_once", "passing"),
        ),
    ),
    ("float", ("input_scale", "residual_ratio", "value_ratio")),
)
"""The fields of `struct step` in order, by their types in C."""
C_TYPE = {name: kind for kind, names in FIELDS for name in names}
KINDS = (
    "QUANTIZE", "CONVOLUTION", "GROUPED", "DEPTHWISE", "MAXIMUM", "MEAN", "MAP", "SUM", "LOOKUP",
    "MULTIPLICATION", "INTERPOLATION", "GATHER", "NORM", "ATTENTION",
)  # fmt: skip
"""The names of `enum kind`, whose numbers count from 0."""
_CTYPES: dict[str, Any] = {
    "int64_t": ctypes.c_int64,
    "int32_t": ctypes.c_int32,
    "float": ctypes.c_float,
}


class CStep(ctypes.Structure):
    """`struct step`."""

    __slots__ = ()  # a misspelt field is an error
    _fields_ = tuple((name, _CTYPES.get(kind, ctypes.c_void_p)) for name, kind in C_TYPE.items())


def c_step(step: Step, pace: Pace) -> tuple[CStep, list[Tensor]]:
    """Return a step at its pace, and the tensors that it points into: keep them as long as it."""
    fields = fields_of(step)
    tensors = {name: value for name, value in fields.items() if isinstance(value, Tensor)}
    tensors |= _per_channel(step)
    pointers = {name: tensor.data_ptr() for name, tensor in tensors.items()}
    return CStep(**fields | pointers, at_once=pace.at_once, passing=pace.passing), list(
        tensors.values()
    )


def _per_channel(step: Step) -> dict[str, Tensor]:
    """Return what the channels of a product or a norm have as whole blocks, which are read."""
    if isinstance(step, Norm):
        blocks = -step.channels % BLOCK
        vectors = {
            "multiplier": F.pad(step.weight, (0, blocks)),
            "shift": F.pad(step.bias, (0, blocks)),
        }
        return {name: in_blocks(v[:, None], len(v)).flatten() for name, v in vectors.items()}
    if not isinstance(step, Product):
        return {}
    vectors = {"bias": step.bias, "multiplier": step.multiplier}
    if isinstance(step.weights, NativeDepthwise):
        return {name: step.weights.by_block(vector) for name, vector in vectors.items()}
    return {name: F.pad(vector, (0, BLOCK)).contiguous() for name, vector in vectors.items()}


def fields_of(step: Step) -> dict[str, Any]:
    """Return the fields of `struct step`, numbers and the tensors that it points to; others are 0."""
    low, high = step.bounds
    return {
        "kind": KINDS.index(kind_of(step)), "channels": step.channels, "pixels": step.pixels,
        "low": low, "high": high, **_output(step.output), **_operands(step), **_own(step),
    }  # fmt: skip


def kind_of(step: Step) -> str:
    """Return the name of a step in `enum kind`."""
    match step:
        case Product(weights=NativeDepthwise()):
            return "DEPTHWISE"
        case Product(weights=GroupedWeights()):
            return "GROUPED"
        case Product():
            return "CONVOLUTION"
    return type(step).__name__.upper()


def _output(place: Place | RealPlace) -> dict[str, Any]:
    if isinstance(place, Place):
        return _place("output", place)
    return {"output_offsets": place.offsets, "output_stride": place.stride, "real": 1}


def _operands(step: Step) -> dict[str, Any]:
    if not isinstance(step, CodesStep):
        return {}
    fields = _place("input", step.input)
    if step.residual is not None:
        fields |= _place("residual", step.residual) | {"residual_ratio": step.residual.ratio}
    return fields


def _place(role: str, place: Place) -> dict[str, Any]:
    return {
        role: place.memory, f"{role}_offsets": place.offsets, f"{role}_stride": place.stride,
        f"{role}_zero": place.zero,
    }  # fmt: skip


def _own(step: Step) -> dict[str, Any]:
    """Return the fields that only this kind of step has."""
    match step:
        case Quantize():
            return {"input_scale": step.scale, **_numbers(step)}
        case Product():
            return {"bias": step.bias, "multiplier": step.multiplier, **_weights(step.weights)}
        case Maximum():
            return {"run_offsets": step.taps, "runs": len(step.taps)}
        case Mean():
            return {
                "run_offsets": step.rows, "runs": len(step.rows), "groups": step.across,
                "width": step.pixel, "input_scale": step.scale,
            }  # fmt: skip
        case Map():
            return {"input_scale": step.scale}
        case Sum():
            return {"input_scale": step.scale, **_sum(step)}
        case Lookup():
            return {"weights": unsigned(step.table).view(torch.int8)}
        case Multiplication():
            return {"input_scale": step.scale, **_place("residual", step.other)}
        case Interpolation():
            return {
                "run_offsets": step.taps, "runs": len(step.taps), "bias": step.weights.flatten(),
                "width": step.across, "input_scale": step.scale,
            }  # fmt: skip
        case Gather():
            return {"run_offsets": step.taps, "width": step.channels * (step.taps.ndim - 1)}
        case Norm():
            return {"multiplier": step.weight, "shift": step.bias, "input_scale": step.epsilon}
        case Attention():
            return _attention(step)
    raise TypeError(f"{step.name}: `struct step` has no {type(step).__name__}")


def _sum(step: Sum) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    if step.third is not None:
        fields |= _place("value", step.third) | {"value_ratio": step.third.ratio}
    if step.rest is not None:
        fields |= _place("rest", step.rest)
    return fields


def _numbers(step: Quantize) -> dict[str, Any]:
    """Return how the real inputs lie: tokens as one row of a single channel."""
    if step.by_channel:
        return {"width": step.width, "plane": step.pixels}
    within = torch.arange(step.channels, dtype=torch.int32)
    offsets = (step.output.offsets[:, None] + within).flatten()
    count = len(offsets)
    row = dict.fromkeys(("pixels", "width", "plane"), count)
    return {"channels": 1, "output_offsets": offsets, **row}


def _attention(step: Attention) -> dict[str, Any]:
    mask = {} if step.mask is None else {"mask": step.mask, "masks": len(step.mask)}
    return {
        "width": step.queries, "plane": step.keys, "groups": step.depth, "input_scale": step.rate,
        "residual_ratio": step.ratio, **mask,
        **_place("residual", step.key), **_place("value", step.value),
    }  # fmt: skip


def _weights(weights: Weights) -> dict[str, Any]:
    match weights:
        case NativeWeights():
            return {
                "weights": weights.weights, "run_offsets": weights.runs, "runs": len(weights.runs),
                "groups": weights.groups, "bands": weights.bands, "band_count": len(weights.bands),
                "slice": weights.slice, "slice_input": weights.slice_input, "width": weights.column,
            }  # fmt: skip
        case NativeDepthwise():
            return {
                "weights": weights.weights, "run_offsets": weights.rows, "runs": len(weights.rows),
                "groups": weights.columns, "width": weights.column, "plane": weights.across,
            }  # fmt: skip
    raise TypeError(f"`struct step` has no {type(weights).__name__}")
