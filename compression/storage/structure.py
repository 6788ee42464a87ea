"""How a compressed network differs in structure from the float one that it was made of."""

import math
from collections.abc import Mapping
from typing import Any

from torch import nn

from compression.errors import CheckpointError, CompressionError
from compression.narrow import make_narrow, record_widths, recorded_widths
from compression.projections import written_out
from compression.quantization import (
    CodedWeight,
    DynamicQuantizedRecurrent,
    DynamicWeight,
    WeightQuantizedEmbedding,
    WeightQuantizedRecurrent,
)
from compression.quantization.cast import DTYPES, CastModel, cast
from compression.quantization.dynamic import make_dynamic
from compression.quantization.proof import Shown
from compression.quantization.replacement import float_layers
from compression.quantization.static import StaticQuantizedModel, empty_static
from compression.quantization.weights import KINDS, WeightQuantizedLayer, make_weights
from compression.quantization.windows import MOST_NUMBERS

BEFORE = {
    "cast": ("weights", "dynamic", "channels"),
    "weights": ("dynamic", "channels"),
    "dynamic": ("channels",),
    "static": ("channels",),
}
"""The kinds that each kind may have been made of."""

MOST_SIDE = 2**14
"""Rows or columns of a map."""


def structure_of(model: nn.Module) -> dict[str, Any] | None:
    """Return what restructure needs, fit for JSON; None for a network that keeps its structure.

    "num_bits" maps state-dict names of codes to their bits, where they are fewer than 8. Where
    techniques were composed, "of" is the structure that the last one was given; "keep" names layers
    that stayed in float though their like have codes, and batch norms that were not folded. "widths"
    are the numbers of channels of layers that are smaller than the network's code makes them; those
    of attention that lost heads are its projections', and it is written out. "attention" names what
    is written out though it lost no heads; other attention is whole, as in files without the key. So
    with "later" and embeddings and recurrent layers that have codes of the file's kind. "windows" are
    the sizes of maps that attention in windows was written out for; without the key it is whole.
    "sizes" are those of an image, where the network was followed for images of these sizes only;
    "streams" tells that residual streams keep what rounding leaves, "tail" that sums and interpolations
    before the outputs are real.
    """
    if isinstance(model, StaticQuantizedModel):
        shown = {
            "keep": list(model.shown.token_norms),
            "windows": {name: list(size) for name, size in model.shown.windows.items()},
            "sizes": list(model.shown.sizes or ()),
            "streams": model.shown.streams,
            "tail": model.shown.tail,
        }
        told = {key: value for key, value in shown.items() if value}
        return {"kind": "static", "num_bits": {}} | told | _of(_narrow(model))
    if isinstance(model, CastModel):
        inner = structure_of(model.network)
        bits = {f"network.{name}": n for name, n in (inner or {"num_bits": {}})["num_bits"].items()}
        kind = {"kind": "cast", "dtype": str(model.dtype).removeprefix("torch.")}
        return kind | {"num_bits": bits} | _of(inner)
    return _weights(model) or _dynamic(model) or _narrow(model)


def _of(before: dict[str, Any] | None) -> dict[str, Any]:
    return {"of": before} if before else {}


def _narrow(model: nn.Module) -> dict[str, Any] | None:
    widths = recorded_widths(model)
    return {"kind": "channels", "num_bits": {}, "widths": widths} if widths else None


def _dynamic(model: nn.Module) -> dict[str, Any] | None:
    if not any(isinstance(m, DynamicWeight) for m in model.modules()):
        return None
    coded = [
        name
        for name, m in model.named_modules(remove_duplicate=False)
        if isinstance(m, WeightQuantizedLayer) and type(m.layer) is nn.Linear
    ]
    kept = _keep(model, (nn.Linear,), coded) | _attention(model)
    kept |= _later(model, (DynamicQuantizedRecurrent,))
    return {"kind": "dynamic", "num_bits": {}} | kept | _of(_narrow(model))


def _weights(model: nn.Module) -> dict[str, Any] | None:
    layers = {n: m for n, m in model.named_modules() if isinstance(m, CodedWeight)}
    if not layers:
        return None
    first = next(iter(layers.values()))
    other = next((n for n, m in layers.items() if _options(m) != _options(first)), None)
    if other is not None:
        raise CompressionError(
            f"{other}: expected one num_bits and group_size for all layers, found {_options(first)} "
            f"and {_options(layers[other])}; quantize the network at once"
        )
    bits = {f"{n}.codes".removeprefix("."): m.num_bits for n, m in layers.items()}
    return (
        {
            "kind": "weights",
            "bits": first.num_bits,
            "group_size": first.group_size,
            "num_bits": bits if first.num_bits < 8 else {},
        }
        | _keep(model, KINDS, [])
        | _attention(model)
        | _later(model, (WeightQuantizedEmbedding, WeightQuantizedRecurrent))
        | _of(_dynamic(model) or _narrow(model))
    )


def _later(model: nn.Module, kinds: tuple[type[nn.Module], ...]) -> dict[str, Any]:
    named = model.named_modules(remove_duplicate=False)
    names = [name for name, module in named if isinstance(module, kinds)]
    return {"later": names} if names else {}


def _options(layer: CodedWeight) -> tuple[int, int | None]:
    return layer.num_bits, layer.group_size


def _attention(model: nn.Module) -> dict[str, Any]:
    narrow = {name.rpartition(".")[0] for name in recorded_widths(model)}
    names = [name for name in written_out(model) if name not in narrow]
    return {"attention": names} if names else {}


def _keep(
    model: nn.Module, kinds: tuple[type[nn.Module], ...], others: list[str]
) -> dict[str, Any]:
    names = sorted([*float_layers(model, kinds), *others])
    return {"keep": names} if names else {}


def restructure(model: nn.Module, structure: Mapping[str, Any]) -> nn.Module:
    """Return a network with the state-dict keys and shapes that `structure` was read from.

    `model` is a fresh float network of the same architecture; its values are of no account. Raises
    CheckpointError for a structure that no version of this package wrote.
    """
    keep, attention, later = (structure.get(key, []) for key in ("keep", "attention", "later"))
    match structure:
        case {"kind": str(kind), "of": {"kind": str(before)}} if before in BEFORE.get(kind, ()):
            model = restructure(model, structure["of"])
    match structure:
        case {"kind": "channels", "widths": dict(found)}:
            return make_narrow(model, found)
        case {"kind": "static"}:
            windows, sizes = _windows(structure.get("windows", {})), _sizes(structure.get("sizes"))
            streams, tail = (structure.get(key, False) is True for key in ("streams", "tail"))
            static = empty_static(model, Shown(tuple(keep), windows, sizes, streams, tail))
            record_widths(static, recorded_widths(model))
            return static
        case {"kind": "dynamic"}:
            return make_dynamic(model, keep=keep, attention=attention, later=later)
        case {"kind": "cast", "dtype": str(dtype)} if dtype in DTYPES:
            return cast(model, DTYPES[dtype])
        case {"kind": "weights", "bits": int(bits), "group_size": int() | None as group_size}:
            options = {"keep": keep, "attention": attention, "later": later}
            return make_weights(model, num_bits=bits, group_size=group_size, **options)
    raise CheckpointError(f"unknown structure {dict(structure)!r}: written by a newer version?")


def _windows(found: Any) -> dict[str, tuple[int, int]]:
    """Return sizes of maps by their names; CheckpointError for what none of our versions wrote."""
    match found:
        case dict() if all(map(_is_size, found.values())):
            return {str(name): (size[0], size[1]) for name, size in found.items()}
    raise CheckpointError(f"unknown sizes of windows {found!r}: written by a newer version?")


def _sizes(found: Any) -> tuple[int, ...] | None:
    """Return an image's sizes, None where there are none; CheckpointError as above."""
    match found:
        case None:
            return None
        case list() if found and all(type(n) is int and 0 < n <= MOST_SIDE for n in found):
            if math.prod(found) <= MOST_NUMBERS:
                return tuple(found)
    raise CheckpointError(f"unknown sizes of an image {found!r}: written by a newer version?")


def _is_size(found: Any) -> bool:
    return (
        isinstance(found, list)
        and len(found) == 2
        and all(type(side) is int and 0 < side <= MOST_SIDE for side in found)
    )
