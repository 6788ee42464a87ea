"""What a step may read and write: checked once, before compiled code trusts it."""

import torch
from torch import Tensor

from compression.errors import CompressionError
from compression.integer.native.depthwise import NativeDepthwise
from compression.integer.native.packing import BLOCK, GROUP, LANES, NativeWeights
from compression.integer.native.step import C_TYPE, fields_of
from compression.integer.steps import (
    Attention,
    CodesStep,
    Gather,
    Interpolation,
    Lookup,
    Maximum,
    Mean,
    Multiplication,
    Norm,
    Place,
    Product,
    Step,
    Sum,
)
from compression.quantization.attention import MOST_CHANNELS
from compression.quantization.norm import MOST_CODES, MOST_FINE_CODES

DTYPES = {
    "const uint8_t *": torch.uint8,
    "void *": torch.uint8,
    "const int8_t *": torch.int8,
    "const int32_t *": torch.int32,
    "const struct band *": torch.int32,
    "const float *": torch.float32,
}
"""Of what the pointers of `struct step` point to; codes alone are written."""


def check_bounds(step: Step, images: int) -> None:
    """Raise CompressionError unless `step`, for so many images, stays within its tensors."""
    for name, value in fields_of(step).items():
        if isinstance(value, Tensor):
            right = value.dtype == DTYPES[C_TYPE[name]] and value.is_contiguous()
            _check(step, right, f"{name}'s memory")
    if isinstance(step.output, Place):
        _check_place(step, "output", step.output, step.channels, images)
    else:
        first, last = step.output.offsets.min(), step.output.offsets.max()
        inside = bool(first >= 0) and int(last) + step.channels <= step.output.stride
        _check(step, inside, "output within an image's outputs")
    if isinstance(step, CodesStep):
        _check_place(step, "input", step.input, _reach(step), images)
        if step.residual is not None:
            _check_place(step, "residual", step.residual, step.channels, images)
    match step:
        case Product():
            _check_product(step)
        case Lookup():
            _check(step, step.table.shape == (256,), "a table of all codes")
        case Multiplication():
            _check_place(step, "other", step.other, step.channels, images)
        case Interpolation():
            pairs = (step.across + step.pixels // step.across, 2)
            _check(step, step.weights.shape == pairs and len(step.taps) == 4, "weights per pixel")
        case Sum():
            if step.third is not None:
                _check_place(step, "value", step.third, step.channels, images)
            if step.rest is not None:
                _check_place(step, "rest", step.rest, step.channels, images)
        case Norm(weight=weight, bias=bias, residual=rest):
            most = MOST_CODES if rest is None else MOST_FINE_CODES
            held = weight.shape == bias.shape == (step.channels,)
            _check(step, held and step.channels <= most, "factors and shifts per channel")
        case Attention():
            _check_attention(step, images)
        case Gather():
            each = step.taps.shape in ((step.channels,), (step.pixels, step.channels))
            _check(step, each, "taps per channel")


def _check_product(step: Product) -> None:
    for name, value in (("bias", step.bias), ("multiplier", step.multiplier)):
        _check(step, value.shape == (step.channels,), f"{name} per channel")
    match step.weights:
        case NativeWeights(weights=weights, runs=runs, groups=groups) as packed:
            whole, rest = divmod(step.channels, packed.slice)
            lanes = LANES * (whole * -(-packed.slice // LANES) + -(-rest // LANES))
            inside = 0 < packed.slice <= BLOCK and packed.slice_input >= 0
            inside = inside and weights.numel() == lanes * len(runs) * groups * GROUP
            _check(step, inside, "packed weights")
            _check_bands(step, packed)
        case NativeDepthwise() as packed:
            _check_depthwise(step, packed)


def _check_depthwise(step: Product, packed: NativeDepthwise) -> None:
    blocks = -(-step.channels // BLOCK)
    whole = packed.weights.numel() == blocks * BLOCK * len(packed.rows) * packed.columns
    whole = whole and len(packed.rows) % GROUP == 0 and packed.channels == step.channels
    _check(step, whole and packed.columns > 0 and packed.column > 0, "packed weights")
    _check(step, step.pixels % packed.across == 0, "rows of pixels")
    apart = step.input.offsets.view(-1, packed.across).diff(dim=1)
    _check(step, len(apart.unique()) <= 1, "pixels of a row, equally far apart")


def _check_attention(step: Attention, images: int) -> None:
    whole = step.keys > 0 and step.pixels % step.queries == 0
    _check(step, whole and 0 < step.depth <= MOST_CHANNELS, "groups of queries")
    pixels = step.pixels // step.queries * step.keys
    for role, place, reach in (
        ("key", step.key, step.depth),
        ("value", step.value, step.channels),
    ):
        _check_place(step, role, place, reach, images, pixels)
    if step.mask is not None:
        shape = (len(step.mask), step.queries, step.keys)
        _check(step, len(step.mask) > 0 and step.mask.shape == shape, "a mask per query and key")


def _reach(step: CodesStep) -> int:
    """Return the bytes from a window's corner to the end of what is read."""
    match step:
        case Product(weights=NativeWeights(runs=runs) as packed):
            slices = -(-step.channels // packed.slice)
            return _last(step, runs) + packed.run_bytes + (slices - 1) * packed.slice_input
        case Product(weights=NativeDepthwise(rows=rows, columns=columns, column=column)):
            return _last(step, rows) + (columns - 1) * column + max(BLOCK, step.channels)
        case Maximum(taps=taps) | Interpolation(taps=taps):
            return _last(step, taps) + step.channels
        case Gather():
            return _last(step, step.taps) + 1
        case Attention():
            return step.depth
        case Mean():
            return _last(step, step.rows) + (step.across - 1) * step.pixel + step.channels
    return step.channels


def _last(step: Step, runs: Tensor) -> int:
    """Return where the last run of a window begins; none begins before its corner."""
    _check(step, int(runs.min()) >= 0, "runs of a window")
    return int(runs.max())


def _check_place(
    step: Step, role: str, place: Place, reach: int, images: int, pixels: int | None = None
) -> None:
    offsets, pixels = place.offsets, step.pixels if pixels is None else pixels
    _check(step, len(offsets) == pixels, f"{role}_offsets per pixel")
    end = (images - 1) * place.stride + int(offsets.max()) + reach
    inside = int(offsets.min()) >= 0 and end <= place.memory.numel()
    _check(step, inside, f"{role} within its memory")


def _check_bands(step: Step, packed: NativeWeights) -> None:
    first, pixels, run, runs, group, groups = packed.bands.t()
    inside = bool(((run >= 0) & (run + runs <= len(packed.runs))).all())
    inside = inside and bool(((group >= 0) & (group + groups <= packed.groups)).all())
    inside = inside and first.tolist() == [0, *pixels.cumsum(0)[:-1].tolist()]
    _check(step, inside and int(pixels.sum()) == step.pixels, "bands of pixels")


def _check(step: Step, holds: bool, what: str) -> None:
    if not holds:
        raise CompressionError(
            f"{step.name}: the native executor would read or write beyond a tensor ({what}); use "
            "another executor, and report this network"
        )
