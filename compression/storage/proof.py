"""What save proves of a file before it writes one: that load will give the same network back."""

import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from compression.architectures import Architecture
from compression.errors import CheckpointError, CompressionError
from compression.layers import replace_everywhere, unfilters
from compression.quantization import (
    CastModel,
    CodedRecurrent,
    DynamicQuantizedLinear,
    WeightQuantizedEmbedding,
    WeightQuantizedLayer,
)
from compression.quantization.coded import in_float
from compression.storage.encoding import check_storable, kind_of, same_bits
from compression.storage.rebuild import compare
from compression.storage.structure import restructure
from compression.storage.unstored import unstored_buffers

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
    samples: dict[str, Tensor] = {}
    for name, tensor in state.items():
        check_storable(name, tensor)
        # Not the tensors themselves: modules have loading of their own, which may write into them.
        samples[name], sample = _small(tensor), _small(tensor)
        if isinstance(want := wanted.get(name), nn.Parameter):
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
    lost = [n for n, t in samples.items() if n not in found or not same_bits(found[n], t)]
    if lost or found.keys() != samples.keys():
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
    """Refuse a compressed network that is not rebuilt from what the file tells of its structure."""
    if structure is None:
        inside = {n: m for n, m in model.named_modules() if _is_compressed(m)}
        for name, layer in inside.items():
            raise _unfit_error(
                f"{name or 'the network'} is {type(layer).__name__}, of a compressed network"
            )
    elif structure["kind"] != "static":  # whose own plan tells its layers
        twin = _twin(model)
        if twin is None:
            return
        try:
            again = restructure(_in_float(twin), structure)
            compare(again, {name: kind_of(t) for name, t in model.state_dict().items()})
        except CompressionError as error:
            raise _unfit_error(
                f"some layers are compressed otherwise than others ({error})"
            ) from error


def _is_compressed(module: nn.Module) -> bool:
    """Tell whether a class is of a compressed network's, training apart, which a factory can make."""
    place = type(module).__module__
    return place.startswith("compression.") and place != "compression.quantization.qat"


def _unfit_error(found: str) -> CompressionError:
    return CompressionError(
        f"{found}: the file could not tell load how to build the network; save the compressed network "
        "itself, made of the whole float network by the techniques of this package"
    )


def _in_float(twin: nn.Module) -> nn.Module:
    """Return a twin with the float layers that its quantized ones were made of, of any values."""
    if isinstance(twin, CastModel):
        twin = twin.network
    for layer in list(twin.modules()):
        if isinstance(layer, WeightQuantizedLayer | WeightQuantizedEmbedding | CodedRecurrent):
            plain = in_float(layer, _empty_weight)
        elif isinstance(layer, DynamicQuantizedLinear):
            plain = nn.Linear(layer.in_features, layer.out_features, device="meta")
            plain._parameters["bias"] = layer._parameters["bias"]
            plain._parameters["weight"] = nn.Parameter(_empty_weight(layer))
        else:
            continue
        if layer is twin:
            return plain
        replace_everywhere(twin, layer, plain)
    return twin


def _empty_weight(layer: Any) -> Tensor:
    """Return a weight of the shape and dtype of a layer's, of any values."""
    codes = layer.codes
    if isinstance(layer, WeightQuantizedLayer):
        codes = unfilters(codes, layer.layer)
    return torch.zeros((), dtype=layer.like.dtype).expand(codes.shape)


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
    buffers = {name: tensor for name, tensor, _ in unstored_buffers(fresh)}
    for name, tensor, _ in unstored_buffers(model):
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
