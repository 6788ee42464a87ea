"""What save proves of a file before it writes one: that load will give the same network back."""

import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from compression.architectures import Architecture
from compression.errors import CheckpointError, CompressionError
from compression.layers import replace_layer
from compression.quantization import (
    CastModel,
    DynamicQuantizedLinear,
    StaticQuantizedModel,
    WeightQuantizedLayer,
    restructure,
)
from compression.storage.encoding import check_storable, kind_of, same_bits
from compression.storage.rebuild import compare
from compression.storage.unstored import unstored_buffers

_QUANTIZED = (CastModel, DynamicQuantizedLinear, StaticQuantizedModel, WeightQuantizedLayer)
_ROOTS = {"static": StaticQuantizedModel, "cast": CastModel}
_SMALL = 4096  # elements of a buffer that a module's own loading may look at
_PLAIN = (bool, int, float, str, type(None))
# What load sets, and what changes no number.
_FREE = {"training", "inplace"}


def check_loads(model: nn.Module) -> None:
    """Refuse a network that does not take its own state dict back."""
    twin = _twin(model)
    if twin is None:
        return
    state, wanted = model.state_dict(), twin.state_dict(keep_vars=True)
    for name, tensor in state.items():
        check_storable(name, tensor)
        # Not the tensors themselves: modules have loading of their own, which may write into them.
        sample = _small(tensor)
        want = wanted.get(name)
        if isinstance(want, nn.Parameter):
            sample = nn.Parameter(sample, want.requires_grad)
        state[name] = sample
    try:
        twin.load_state_dict(state, strict=True, assign=True)
        found = twin.state_dict()
    except Exception as error:  # such loading raises anything
        raise CompressionError(
            f"{type(model).__name__} does not load its own state dict, so the file would never "
            f"load: {error}"
        ) from error
    lost = [n for n, t in state.items() if n not in found or not same_bits(found[n], t)]
    if lost or found.keys() != state.keys():
        raise CompressionError(
            f"{type(model).__name__} does not keep what its own state dict holds, so the file would "
            f"never load: {', '.join(lost[:3]) or 'it has other names'}"
        )


def _twin(model: nn.Module) -> nn.Module | None:
    """Return a copy whose tensors take little memory; None where what else it holds has no copy."""
    memo: dict[int, Any] = {}
    for module in model.modules():
        others = [value for value in vars(module).values() if isinstance(value, Tensor)]
        memo |= {id(tensor): _small(tensor) for tensor in others}
        for tensor in [*module._parameters.values(), *module._buffers.values()]:
            if tensor is not None:
                empty = tensor.detach().new_zeros(()).expand(tensor.shape)  # as load has them
                parameter = isinstance(tensor, nn.Parameter)
                memo[id(tensor)] = nn.Parameter(empty, tensor.requires_grad) if parameter else empty
    try:
        return copy.deepcopy(model, memo)
    except Exception:  # a lock, a generator: load has no need of a copy
        return None


def _small(tensor: Tensor) -> Tensor:
    """Return a copy, or ones that take no memory where it were large."""
    if tensor.numel() <= _SMALL:
        return tensor.detach().clone()
    return tensor.detach().new_ones(()).expand(tensor.shape)


def check_structure(model: nn.Module, structure: dict[str, Any] | None) -> None:
    """Refuse a mix of techniques that the file's structure does not tell."""
    ours = {n: m for n, m in model.named_modules() if isinstance(m, _QUANTIZED)}
    kinds = {type(m) for m in ours.values()}
    root = _ROOTS.get(structure["kind"]) if structure else None
    if structure is None:
        inside = {n: m for n, m in model.named_modules() if _inner(m)}
        if inside:
            name, layer = next(iter(inside.items()))
            raise _unfit(
                f"{name or 'the network'} is {type(layer).__name__}, a part of a compressed"
            )
    elif len(kinds) > 1 or (root is not None and len(ours) > 1):
        names = ", ".join(f"{n or 'the network'} ({type(m).__name__})" for n, m in ours.items())
        raise _unfit(f"{names[:200]}: techniques one inside another, in one")
    elif root is None:
        _check_every_layer(model, structure)


def _inner(module: nn.Module) -> bool:
    """Tell whether a class is of a compressed network's, training apart, which a factory can make."""
    place = type(module).__module__
    return place.startswith("compression.") and place != "compression.quantization.qat"


def _unfit(found: str) -> CompressionError:
    return CompressionError(
        f"{found} network: the file could not tell load how to build it; save the compressed network "
        "itself, made by one technique of the whole float network"
    )


def _check_every_layer(model: nn.Module, structure: dict[str, Any]) -> None:
    """Refuse layers quantized otherwise than the structure says of all, or left in float."""
    layers = {n: m for n, m in model.named_modules() if isinstance(m, WeightQuantizedLayer)}
    options = {(m.num_bits, m.group_size): n for n, m in layers.items()}
    if len(options) > 1:
        found = ", ".join(f"{n}: {bits} bits, groups of {g}" for (bits, g), n in options.items())
        raise _unfit(f"layers of several precisions ({found}); a mixed")
    twin = _twin(model)
    if twin is None:
        return
    try:
        again = restructure(_in_float(twin), structure)
        compare(again, {name: kind_of(t) for name, t in model.state_dict().items()})
    except CompressionError as error:
        raise _unfit(
            f"some layers are quantized otherwise than others ({error}); a mixed"
        ) from error


def _in_float(twin: nn.Module) -> nn.Module:
    """Return a twin with the float layers that its quantized ones were made of, of any values."""
    for name, layer in list(twin.named_modules(remove_duplicate=False)):
        if isinstance(layer, DynamicQuantizedLinear | WeightQuantizedLayer):
            weight = nn.Parameter(torch.zeros(()).expand(layer.codes.shape))
            if isinstance(layer, WeightQuantizedLayer):
                plain = layer.layer
            else:
                plain = nn.Linear(1, 1)
                plain.out_features, plain.in_features = layer.codes.shape
                plain.bias = layer.bias  # type: ignore[assignment]
            plain.register_parameter("weight", weight)
            if not name:
                return plain
            replace_layer(twin, name, plain)
    return twin


def check_architecture(
    model: nn.Module, structure: dict[str, Any] | None, architecture: Architecture
) -> None:
    """Refuse an architecture that is not the model's: of other tensors, layers or options."""
    if not isinstance(architecture, Architecture):
        raise CompressionError(
            f"expected an Architecture(name, num_classes), found {type(architecture).__name__}"
        )
    # Drawing its weights must not move the caller's numbers.
    with torch.random.fork_rng(devices=[]):
        fresh = architecture() if structure is None else restructure(architecture(), structure)
    try:
        compare(fresh, {name: kind_of(tensor) for name, tensor in model.state_dict().items()})
    except CheckpointError as error:
        raise CompressionError(f"the model is not {architecture}: {error}") from error
    for difference in _differences(model, fresh):
        raise CompressionError(
            f"the model is not {architecture}: {difference}; leave the architecture out, and give "
            "load a factory"
        )


def _differences(model: nn.Module, fresh: nn.Module) -> Iterator[str]:
    """Tell what a state dict does not: layers, their options, hooks, buffers that are not saved."""
    layers, expected = (dict(m.named_modules(remove_duplicate=False)) for m in (model, fresh))
    for name in sorted(layers.keys() ^ expected.keys()):
        yield f"{name} is a layer of one of them only"
    for name, layer in layers.items():
        other = expected[name]
        where = name or "the network"
        for kind, wanted in ((_class(layer), _class(other)), (_hooks(layer), _hooks(other))):
            if kind != wanted:
                yield f"{where} is {kind}, expected {wanted}"
        options, wanted_options = _options(layer), _options(other)
        for key in sorted(options.keys() | wanted_options.keys()):
            if options.get(key) != wanted_options.get(key):
                yield (
                    f"{where}.{key} is {options.get(key)!r}, expected {wanted_options.get(key)!r}"
                )
    buffers = dict(unstored_buffers(fresh))
    for name, tensor in unstored_buffers(model):
        if name not in buffers or not same_bits(buffers[name].cpu(), tensor.detach().cpu()):
            yield f"{name}, a buffer that a state dict leaves out, has other values"


def _class(module: nn.Module) -> str:
    return f"{type(module).__module__}.{type(module).__qualname__}"


def _hooks(module: nn.Module) -> str:
    hooks = len(module._forward_hooks) + len(module._forward_pre_hooks)
    return f"with {hooks} hooks" + (" and a forward of its own" * ("forward" in vars(module)))


def _options(module: nn.Module) -> dict[str, Any]:
    return {
        key: value
        for key, value in vars(module).items()
        if key not in _FREE and not key.startswith("_") and _is_plain(value)
    }


def _is_plain(value: Any) -> bool:
    if isinstance(value, tuple | list):
        return all(_is_plain(item) for item in value)
    return isinstance(value, _PLAIN)
