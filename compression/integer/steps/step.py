"""The steps of a network: what computes one value each, as the native and the Triton executor read it.

A step says where its operands lie, not how it is run. An executor's own part is how it packs the
weights of a convolution: its own subclass of Weights.
"""

from dataclasses import dataclass, replace
from typing import TypeVar

from torch import Tensor


@dataclass(frozen=True, slots=True)
class Place:
    """Where a value's codes lie.

    `memory` holds them, image after image, `stride` bytes apart; `offsets` (int32) are those of each
    pixel in its image, in bytes; `zero` is the code of the real number 0.
    """

    memory: Tensor
    offsets: Tensor
    stride: int
    zero: int


@dataclass(frozen=True, slots=True)
class RealPlace:
    """Where the network's real output goes: `offsets` and `stride` count its numbers (NHWC)."""

    offsets: Tensor
    stride: int


@dataclass(frozen=True, slots=True)
class Residual(Place):
    """What a step adds before it rounds: a code's distance from `zero` counts `ratio` output steps."""

    ratio: float


@dataclass(frozen=True, slots=True)
class Weights:
    """A product's weights and window; each executor packs those of a convolution in its own way."""


@dataclass(frozen=True, slots=True)
class DepthwiseWeights(Weights):
    """One filter per channel: int8 `weights` [tap][channel], and the offset of each tap (int32)."""

    weights: Tensor
    taps: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What writes one value (`channels` per pixel), its codes clamped to `bounds`."""

    name: str
    channels: int
    output: Place | RealPlace
    bounds: tuple[int, int]

    @property
    def pixels(self) -> int:
        """Return the output's pixels per image."""
        return len(self.output.offsets)


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantize(Step):
    """The network's real inputs become codes.

    They come channel by channel (NCHW, rows of `width` pixels), or pixel by pixel: tokens.
    """

    width: int
    scale: float
    by_channel: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class CodesStep(Step):
    """A step that reads codes: `input` has the offsets at which each output pixel's window begins."""

    input: Place
    residual: Residual | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Product(CodesStep):
    """Sums of products: `bias` (int32) starts them, `multiplier` turns them into output steps."""

    bias: Tensor
    multiplier: Tensor
    weights: Weights


@dataclass(frozen=True, slots=True, kw_only=True)
class Maximum(CodesStep):
    """The largest code of a window, at the offsets `taps` (int32)."""

    taps: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Mean(CodesStep):
    """The average of a window, times `scale`.

    Each of its `rows` (offsets, int32) holds `across` pixels, `pixel` bytes apart.
    """

    rows: Tensor
    across: int
    pixel: int
    scale: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Map(CodesStep):
    """Each code's distance from its zero, times `scale`."""

    scale: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Sum(CodesStep):
    """Each code's distance from its zero, times `scale`, and the residual's; then that of a `third`.

    What rounding leaves of the sum, in REST_STEPS to a step, goes to `rest` where that is given; its
    codes are clamped to the same bounds.
    """

    scale: float
    third: Residual | None = None
    rest: Place | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Lookup(CodesStep):
    """Each code's entry of `table`, whose first is that of the smallest code."""

    table: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Multiplication(CodesStep):
    """The product of two codes' distances from their zeros, times `scale`."""

    other: Place
    scale: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Interpolation(CodesStep):
    """Four neighbours' distances from their zero, at the offsets `taps` (int32), times weights.

    `weights` (int32, pairs) are those of the `across` columns, left and right, and then those of the
    rows, above and below, in units of 2^-11; the exact sum of the products counts 2^-22 of a code, each
    of `scale`.
    """

    taps: Tensor
    weights: Tensor
    across: int
    scale: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Gather(CodesStep):
    """Codes put elsewhere.

    A pixel's channels come from `taps` (int32): the same for each pixel, or (pixels, channels).
    """

    taps: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Norm(CodesStep):
    """LayerNorm of each pixel's channels: `weight` and `bias` (float32) are in output steps.

    `epsilon` counts squared sums of as many codes as there are channels, as the sums do. The
    `residual` is what rounding left of the input: REST_STEPS of its codes are one of the input's.
    """

    weight: Tensor
    bias: Tensor
    epsilon: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Attention(CodesStep):
    """Softmax attention: each group of `queries` pixels of `input` attends to `keys` pixels.

    `key` and `value` hold (groups x keys) pixels. A score has `rate` entries of the table per step;
    `mask` (int32, [masks][query][key]) is added to the scores of every masks-th group.
    """

    queries: int
    keys: int
    depth: int
    key: Place
    value: Place
    mask: Tensor | None
    rate: float
    ratio: float


AnyPlace = TypeVar("AnyPlace", bound=Place | RealPlace)


def in_order(place: AnyPlace, order: Tensor | None) -> AnyPlace:
    """Return a place whose pixels come in the order of these indices; None leaves it as it is."""
    if order is None:
        return place
    return replace(place, offsets=place.offsets[order].contiguous())
