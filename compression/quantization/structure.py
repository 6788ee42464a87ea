"""How a compressed network differs in structure from the float one that it was made of."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from compression.errors import CheckpointError
from compression.quantization.cast import DTYPES, CastModel, cast
from compression.quantization.dynamic import DynamicQuantizedLinear, quantize_dynamic
from compression.quantization.static import StaticQuantizedModel, empty_static
from compression.quantization.weights import WeightQuantizedLayer, quantize_weights


def structure_of(model: nn.Module) -> dict[str, Any] | None:
    """Return what restructure needs, fit for JSON; None for a network that keeps its structure.

    "num_bits" maps state-dict names of codes to their bits, where they are fewer than 8.
    """
    if isinstance(model, StaticQuantizedModel):
        return {"kind": "static", "num_bits": {}}
    if isinstance(model, CastModel):
        return {"kind": "cast", "dtype": str(model.dtype).removeprefix("torch."), "num_bits": {}}
    layers = {n: m for n, m in model.named_modules() if isinstance(m, WeightQuantizedLayer)}
    if layers:
        first = next(iter(layers.values()))
        bits = {f"{n}.codes".removeprefix("."): m.num_bits for n, m in layers.items()}
        return {
            "kind": "weights",
            "bits": first.num_bits,
            "group_size": first.group_size,
            "num_bits": bits if first.num_bits < 8 else {},
        }
    if any(isinstance(m, DynamicQuantizedLinear) for m in model.modules()):
        return {"kind": "dynamic", "num_bits": {}}
    return None


def restructure(model: nn.Module, structure: Mapping[str, Any]) -> nn.Module:
    """Return a network with the state-dict keys and shapes that `structure` was read from.

    `model` is a fresh float network of the same architecture; its values are of no account. Raises
    CheckpointError for a structure that no version of this package wrote.
    """
    match structure:
        case {"kind": "static"}:
            return empty_static(model)
        case {"kind": "dynamic"}:
            return quantize_dynamic(model)
        case {"kind": "cast", "dtype": str(dtype)} if dtype in DTYPES:
            return cast(model, DTYPES[dtype])
        case {"kind": "weights", "bits": int(bits), "group_size": int() | None as group_size}:
            return quantize_weights(model, num_bits=bits, group_size=group_size)
    raise CheckpointError(f"unknown structure {dict(structure)!r}: written by a newer version?")
