"""Layers that are replaced by others on codes: which are, and which stay as they were."""

from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from compression.errors import CompressionError, UnsupportedTypeError
from compression.layers import alteration, copy_model, record_left_out, replace_everywhere
from compression.projections import attentions, holders_of, write_out_projections
from compression.weights import Weight, unreached_weights, weights

LATER = (nn.Embedding, nn.LSTM, nn.GRU, nn.RNN)
"""Layers that had no codes in the first files: a file names those that have."""
Codes = tuple[Tensor, Tensor]
"""Codes of a weight, and their scale."""
Prepare = Callable[[nn.Module, Mapping[str, nn.Module]], None]
"""Takes a network, and its layers that are to be replaced."""


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
    make: Callable[[Any, str, Codes | None], nn.Module],
    *,
    verb: str,
    keep: Collection[str] = (),
    attention: Collection[str] | None = None,
    later: Collection[str] | None = None,
    prepare: Prepare | None = None,
) -> nn.Module:
    """Return a copy in eval mode whose layers of exactly `kinds` are what `make` returns for them.

    `make` takes the layer, its name, and the codes of the layer that its weight is tied to, if any.
    Attention is written out first, so that its projections are layers: that at the names of
    `attention`, by default all that computes what torch's does; so with layers of LATER and `later`.
    Layers that compute something else than their class, and those named in `keep`, stay. What stays in
    float is recorded as left out; CompressionError where that is everything. `prepare` is given the
    copy, and its layers that are to be replaced, by name.
    """
    quantized, reached, kept = _reached(model, keep, attention, kinds)
    outside, holders = _outside_holders(quantized), holders_of(quantized)
    reasons: dict[int, str] = {}
    chosen: dict[str, Weight] = {}
    for weight in reached:
        layer = weight.layer
        reason = "it was to stay" if _is_kept(weight, keep, later) else kept.get(id(weight.tensor))
        reason = reason or _reason(weight, kinds, verb, holders) or outside.get(layer)
        if reason:
            reasons[id(weight.tensor)] = reason
        else:
            chosen[_owner(weight)] = weight
    if not chosen:
        found = "; ".join(f"{w.name}: {reasons[id(w.tensor)]}" for w in reached[:3])
        raise CompressionError(f"{verb} found no layer to quantize: {found}")
    if prepare is not None:
        prepare(quantized, {name: weight.layer for name, weight in chosen.items()})
    made: dict[object, Any] = {}
    for name, weight in chosen.items():
        layer = weight.layer
        kind = nn.Linear if isinstance(layer, nn.Embedding) else type(layer)
        twin = made.get(key := (id(weight.tensor), getattr(layer, "groups", 1), kind))
        if layer not in made:
            codes = None if twin is None else (twin.codes, twin.scale)
            made[layer] = made[key] = make(layer, name, codes)
    return _put_in_place(quantized, made, reasons)


def _owner(weight: Weight) -> str:
    return weight.name.rpartition(".")[0]


def _is_kept(weight: Weight, keep: Collection[str], later: Collection[str] | None) -> bool:
    """Tell whether a layer is to stay: named itself, or one matrix of a recurrent layer."""
    owner = _owner(weight)
    if later is not None and type(weight.layer) in LATER and owner not in later:
        return True
    if not isinstance(weight.layer, nn.RNNBase):
        return weight.label in keep
    names = [owner, *(f"{owner}.{name}".strip(".") for name in weight.layer._parameters)]
    return not set(names).isdisjoint(keep)


def _reached(
    model: nn.Module,
    keep: Collection[str],
    attention: Collection[str] | None,
    kinds: tuple[type[nn.Module], ...],
) -> tuple[nn.Module, list[Weight], dict[int, str]]:
    """Return a copy with attention written out, its weights, and why other attention is whole."""
    if isinstance(keep, str) or not all(isinstance(name, str) for name in keep):
        raise UnsupportedTypeError(
            f"keep must be the dotted names of layers, found {keep!r}; pass ('head',)"
        )
    quantized = copy_model(model).eval()
    also = tuple(kind for kind in LATER if kind in kinds)
    reached = weights(quantized, tied=True, also=also)
    recurrent = {_owner(w) for w in reached if isinstance(w.layer, nn.RNNBase)}
    known = {weight.label for weight in reached} | recurrent
    known.update(names := attentions(quantized))
    quantized, kept = write_out_projections(
        quantized,
        names=names if attention is None else attention,
        keep=keep,
        outside=_outside_holders(quantized),
    )
    reached = weights(quantized, tied=True, also=also)
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


def _put_in_place(model: nn.Module, made: dict[object, Any], reasons: dict[int, str]) -> nn.Module:
    for old, new in made.items():
        if isinstance(old, nn.Module):
            replace_everywhere(model, old, new)
    model = made.get(model, model).eval()
    coded = [m for new in made.values() for m in new.modules() if isinstance(m, CodedLayer)]
    codes = [layer.codes for layer in coded]
    missed = unreached_weights(model, codes)
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


def _reason(
    weight: Weight, kinds: tuple[type[nn.Module], ...], verb: str, holders: Mapping[int, int]
) -> str | None:
    layer, attribute = weight.layer, weight.name.rpartition(".")[2]
    recurrent = isinstance(layer, nn.RNNBase)
    if type(layer) not in kinds or (attribute != "weight" and not recurrent):
        names = ", ".join(f"nn.{kind.__name__}" for kind in kinds if hasattr(nn, kind.__name__))
        return f"{verb} covers {names} only, found {type(layer).__name__}"
    if recurrent and any(holders[id(p)] > 1 for p in layer._parameters.values() if p is not None):
        return "a weight of it is tied to that of another layer"
    if isinstance(layer, nn.Embedding) and layer.max_norm is not None:
        return "its rows are scaled in place, by max_norm"
    return alteration(layer)
