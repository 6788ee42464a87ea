"""Attention of torch's own, written out in place so that its projections are linear layers."""

from collections.abc import Collection, Mapping
from typing import Any

from torch import nn

from compression.attention import Attention
from compression.layers import alteration, replace_everywhere

_PACKED = ("in_proj_weight", "in_proj_bias")
_SPLIT = (*_PACKED, "q_proj_weight", "k_proj_weight", "v_proj_weight")


def attentions(model: nn.Module) -> list[str]:
    """Return the dotted names of all nn.MultiheadAttention within `model`, subclasses among them."""
    named = model.named_modules(remove_duplicate=False)
    return [name for name, module in named if isinstance(module, nn.MultiheadAttention)]


def written_out(model: nn.Module) -> list[str]:
    """Return the dotted names of all attention within `model` that is written out."""
    named = model.named_modules(remove_duplicate=False)
    return [name for name, module in named if isinstance(module, Attention)]


def write_out_projections(
    model: nn.Module,
    *,
    names: Collection[str],
    keep: Collection[str] = (),
    outside: Mapping[nn.Module, str],
) -> tuple[nn.Module, dict[int, str]]:
    """Write out, in place, the attention at `names`; return the network, and why the rest stays.

    `keep` names attention, or its input projections, that stays whole; `outside` gives the reason of
    modules that would not be found by who holds them. Reasons stand by the id of each tensor.
    """
    modules = dict(model.named_modules(remove_duplicate=False))
    holders = holders_of(model)
    reasons: dict[int, str] = {}
    for name in names:
        held: Any = modules.get(name)
        if not isinstance(held, nn.MultiheadAttention):
            continue
        kept = any(f"{name}.{part}".strip(".") in keep for part in _SPLIT)
        reason = "it was to stay" if kept or name in keep else _reason(held, holders)
        reason = reason or outside.get(held)
        if reason is None:
            written = Attention(held)
            replace_everywhere(model, held, written)
            model = written if held is model else model
            modules = {n: written if m is held else m for n, m in modules.items()}
            continue
        left = held.named_parameters() if name in keep else held.named_parameters(recurse=False)
        reasons |= {id(tensor): reason for _, tensor in left}
    return model, reasons


def holders_of(model: nn.Module) -> dict[int, int]:
    """Return how many modules hold each parameter, by its id."""
    counts: dict[int, int] = {}
    for module in model.modules():
        for tensor in module._parameters.values():
            counts[id(tensor)] = counts.get(id(tensor), 0) + 1
    return counts


def _reason(held: nn.MultiheadAttention, holders: Mapping[int, int]) -> str | None:
    """Say why attention would compute something else if it were written out; None if not."""
    if (reason := alteration(held)) is not None:
        return reason
    output = alteration(held.out_proj)
    if output is not None:
        return f"its output projection: {output}"
    for name in _PACKED:
        tensor = held._parameters[name]
        if tensor is not None and holders[id(tensor)] > 1:
            return f"its {name} is tied to that of another layer"
    return None
