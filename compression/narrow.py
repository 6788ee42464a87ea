"""Layers that hold fewer channels than their network's code says: noted on them, and made again."""

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor, nn

from compression.attention import PROJECTIONS, Attention, check_heads
from compression.checks import is_whole
from compression.errors import CompressionError
from compression.layers import CONVOLUTIONS, TRANSPOSED, replace_everywhere

Widths = Mapping[str, Mapping[str, Any]]
"""By a module's dotted name: its numbers of channels, and shapes of tensors that none counts."""

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
INSTANCE_NORMS = (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)
_COUNTS: dict[type[nn.Module], tuple[str, ...]] = {
    **dict.fromkeys((*CONVOLUTIONS, *TRANSPOSED), ("in_channels", "out_channels", "groups")),
    **dict.fromkeys((*BATCH_NORMS, *INSTANCE_NORMS), ("num_features",)),
    nn.Linear: ("in_features", "out_features"),
    nn.GroupNorm: ("num_channels", "num_groups"),
    nn.PReLU: ("num_parameters",),
    nn.Embedding: ("embedding_dim",),
}


def record_widths(model: nn.Module, found: Widths) -> None:
    """Note on `model` that layers are narrower than its code says, beside what is noted already."""
    noted = {name: dict(counts) for name, counts in getattr(model, "_widths", {}).items()}
    for name, counts in found.items():
        noted.setdefault(name, {}).update(counts)
    if noted:
        model._widths = noted  # type: ignore[assignment]


def recorded_widths(model: nn.Module) -> dict[str, dict[str, Any]]:
    """Return what is noted on `model` and on networks within it, fit for JSON."""
    found: dict[str, dict[str, Any]] = {}
    for prefix, module in model.named_modules():
        for name, counts in getattr(module, "_widths", {}).items():
            noted = found.setdefault(f"{prefix}.{name}".strip("."), {})
            for attribute, width in counts.items():
                noted[attribute] = _least(noted.get(attribute, width), width)
    return found


def _least(first: Any, second: Any) -> Any:
    """Return the later of two notes: layers only shrink."""
    return min(first, second) if is_whole(first) else list(map(min, first, second))


def make_narrow(model: nn.Module, found: Widths) -> nn.Module:
    """Give `model`, in place, layers of these widths, whose values are of no account; return it.

    Attention whose projections have widths is written out. Raises CompressionError for widths that
    are no narrower form of its layers.
    """
    written = write_out(model, found)
    modules = dict(model.named_modules())
    for name, wanted in found.items():
        module = modules.get(name)
        if module is None or not isinstance(wanted, Mapping):
            raise CompressionError(f"the network has no module {name!r} of widths {wanted!r}")
        for attribute, width in wanted.items():
            _narrow(module, name, attribute, width)
        _reshape(module)
    for name, attention in written.items():
        check_heads(name, attention)
    record_widths(model, found)
    return model


def write_out(model: nn.Module, names: Iterable[str]) -> dict[str, Attention]:
    """Write out, in place, the nn.MultiheadAttention with projections among `names`; return them.

    Encoders around them keep to plain tensors: their nested ones are for torch's fast path alone.
    """
    modules, written = dict(model.named_modules()), dict[str, Attention]()
    for parent, _, child in sorted(name.rpartition(".") for name in names):
        held = modules.get(parent)
        if parent in written or child not in PROJECTIONS or not parent:
            continue
        if type(held) is nn.MultiheadAttention:
            written[parent] = Attention(held)
            replace_everywhere(model, held, written[parent])
    for name, module in modules.items():
        inside = (f"{other}.".startswith(f"{name}.".lstrip(".")) for other in written)
        if isinstance(module, nn.TransformerEncoder) and any(inside):
            module.use_nested_tensor = False
    return written


def _narrow(module: nn.Module, name: str, attribute: str, width: Any) -> None:
    held = getattr(module, attribute, None)
    if attribute in _COUNTS.get(_kind(module), ()):
        if not is_whole(width) or not 1 <= width <= held:  # type: ignore[operator]
            raise CompressionError(f"{name}.{attribute}: expected 1 to {held}, found {width!r}")
        setattr(module, attribute, width)
    elif isinstance(held, Tensor) and attribute in {**module._parameters, **module._buffers}:
        sizes = list(held.shape)
        fits = isinstance(width, list) and len(width) == len(sizes) and all(map(is_whole, width))
        if not fits or not all(1 <= a <= b for a, b in zip(width, sizes, strict=True)):
            raise CompressionError(f"{name}.{attribute}: expected at most {sizes}, found {width!r}")
        replace_tensor(module, attribute, held.new_zeros(()).expand(width))
    else:
        raise CompressionError(f"{name}: {type(module).__name__} has no width {attribute!r}")


def _kind(module: nn.Module) -> type[nn.Module]:
    """Return the layer of torch that a module is, by its class or by one that it derives from."""
    return next((kind for kind in type(module).__mro__ if kind in _COUNTS), type(module))


def _reshape(module: nn.Module) -> None:
    """Give the tensors of a known layer the shapes that its counts mean."""
    for attribute, held in [*module._parameters.items(), *module._buffers.items()]:
        if held is not None and (shape := _shape(module, attribute, held)) is not None:
            replace_tensor(module, attribute, held.new_zeros(()).expand(shape))


def _shape(module: Any, attribute: str, held: Tensor) -> tuple[int, ...] | None:
    kind = _kind(module)
    if kind in (*CONVOLUTIONS, *TRANSPOSED):
        outputs, inputs, groups = module.out_channels, module.in_channels, module.groups
        if outputs % groups or inputs % groups:
            raise CompressionError(f"{inputs} to {outputs} channels in {groups} groups")
        if attribute == "bias":
            return (outputs,)
        first, second = (inputs, outputs) if kind in TRANSPOSED else (outputs, inputs)
        return (first, second // groups, *held.shape[2:])
    if kind is nn.Linear:
        outputs, inputs = module.out_features, module.in_features
        return (outputs, inputs) if attribute == "weight" else (outputs,)
    if kind is nn.Embedding:
        return (module.num_embeddings, module.embedding_dim)
    if kind is nn.GroupNorm and module.num_channels % module.num_groups:
        raise CompressionError(f"{module.num_channels} channels in {module.num_groups} groups")
    if kind in _COUNTS and held.ndim == 1:
        return (getattr(module, _COUNTS[kind][0]),)
    return None


def replace_tensor(module: nn.Module, attribute: str, tensor: Tensor) -> None:
    """Put a tensor in the place of a parameter or buffer of `module`, as what the old one was."""
    held = getattr(module, attribute)
    if isinstance(held, nn.Parameter):
        if not isinstance(tensor, nn.Parameter):
            tensor = nn.Parameter(tensor, requires_grad=held.requires_grad)
        module._parameters[attribute] = tensor
    else:
        module._buffers[attribute] = tensor
