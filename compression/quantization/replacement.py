"""Layers that are replaced by others on codes: which are, and which stay as they were."""

from collections.abc import Callable, Collection
from typing import Any

import torch
from torch import Tensor, nn

from compression.errors import CompressionError, UnsupportedTypeError
from compression.layers import alteration, copy_model, record_left_out, replace_everywhere
from compression.projections import attentions, write_out_projections
from compression.weights import Weight, unreached_weights, weights

Codes = tuple[Tensor, Tensor]
"""Codes of a weight, and their scale."""


class CodedLayer(nn.Module):
    """A layer that holds codes and their scale, which stays in float32 where the network is cast."""

    parameter_buffers = ("codes",)
    codes: Tensor
    scale: Tensor
    like: Tensor

    def __init__(self, codes: Codes, like: Tensor) -> None:
        """Hold `codes` of a weight that is of the dtype of `like`."""
        super().__init__()
        self.register_buffer("codes", codes[0])
        self.register_buffer("scale", codes[1])
        self.register_buffer("like", like.new_empty(0), persistent=False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "CodedLayer":
        scale = self.scale
        super()._apply(fn, recurse)
        if self.scale.dtype != torch.float32:
            self.scale = scale.to(self.scale.device)
        return self


def replace_layers(
    model: nn.Module,
    kinds: tuple[type[nn.Module], ...],
    make: Callable[[Any, str, Codes | None], CodedLayer],
    *,
    verb: str,
    keep: Collection[str] = (),
    attention: Collection[str] | None = None,
) -> nn.Module:
    """Return a copy in eval mode whose layers of exactly `kinds` are what `make` returns for them.

    `make` takes the layer, its name, and the codes of the layer that its weight is tied to, if any.
    Attention is written out first, so that its projections are layers: that at the names of
    `attention`, by default all that computes what torch's does. Layers that compute something else
    than their class, and those named in `keep`, stay. What stays in float is recorded as left out;
    CompressionError where that is everything.
    """
    quantized, reached, kept = _reached(model, keep, attention)
    outside = _outside_holders(quantized)
    reasons: dict[int, str] = {}
    made: dict[object, CodedLayer] = {}
    for weight in reached:
        layer = weight.layer
        reason = "it was to stay" if weight.label in keep else kept.get(id(weight.tensor))
        reason = reason or _reason(weight, kinds, verb) or outside.get(layer)
        if reason:
            reasons[id(weight.tensor)] = reason
            continue
        twin = made.get(key := (id(weight.tensor), getattr(layer, "groups", 1), type(layer)))
        if layer not in made:
            codes = None if twin is None else (twin.codes, twin.scale)
            made[layer] = made[key] = make(layer, weight.label, codes)
    if not made:
        found = "; ".join(f"{w.name}: {reasons[id(w.tensor)]}" for w in reached[:3])
        raise CompressionError(f"{verb} found no layer to quantize: {found}")
    return _put_in_place(quantized, made, reasons)


def _reached(
    model: nn.Module, keep: Collection[str], attention: Collection[str] | None
) -> tuple[nn.Module, list[Weight], dict[int, str]]:
    """Return a copy with attention written out, its weights, and why other attention is whole."""
    if isinstance(keep, str) or not all(isinstance(name, str) for name in keep):
        raise UnsupportedTypeError(
            f"keep must be the dotted names of layers, found {keep!r}; pass ('head',)"
        )
    quantized = copy_model(model).eval()
    known = {weight.label for weight in weights(quantized, tied=True)}
    known.update(names := attentions(quantized))
    quantized, kept = write_out_projections(
        quantized,
        names=names if attention is None else attention,
        keep=keep,
        outside=_outside_holders(quantized),
    )
    reached = weights(quantized, tied=True)
    unknown = sorted(set(keep) - known - {weight.label for weight in reached})
    if unknown:
        raise CompressionError(f"keep: the network has no layer with weights at {unknown[0]!r}")
    return quantized, reached, kept


def float_layers(model: nn.Module, kinds: tuple[type[nn.Module], ...]) -> list[str]:
    """Return the layers of exactly `kinds` that a quantized `model` still has in float."""
    found = [w.label for w in _floats(model) if type(w.layer) in kinds]
    return [name for name in found if name]


def _floats(model: nn.Module) -> list[Weight]:
    try:
        return weights(model, tied=True)
    except CompressionError:
        return []


def _put_in_place(
    model: nn.Module, made: dict[object, CodedLayer], reasons: dict[int, str]
) -> nn.Module:
    for old, new in made.items():
        if isinstance(old, nn.Module):
            replace_everywhere(model, old, new)
    model = made.get(model, model).eval()
    missed = unreached_weights(model, [layer.codes for layer in made.values()])
    for name, tensor in model.named_parameters():
        if name in missed:
            missed[name] = reasons.get(id(tensor), missed[name])
    record_left_out(model, missed)
    return model


def _outside_holders(model: nn.Module) -> dict[nn.Module, str]:
    """Return the modules that plain attributes hold too, where no other would take their place."""
    found = {}
    for prefix, parent in model.named_modules():
        for name, value in vars(parent).items():
            if name == "_modules":
                continue
            values = value.values() if isinstance(value, dict) else value
            for item in values if isinstance(value, dict | list | tuple | set) else [value]:
                if isinstance(item, nn.Module):
                    place = f"{prefix}.{name}".removeprefix(".")
                    found[item] = f"the plain attribute {place} holds it too; use nn.ModuleList"
    return found


def _reason(weight: Weight, kinds: tuple[type[nn.Module], ...], verb: str) -> str | None:
    if type(weight.layer) in kinds and weight.name.rpartition(".")[2] == "weight":
        return alteration(weight.layer)
    names = ", ".join(f"nn.{kind.__name__}" for kind in kinds if hasattr(nn, kind.__name__))
    return f"{verb} covers {names} only, found {type(weight.layer).__name__}"
