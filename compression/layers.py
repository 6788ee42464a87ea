"""A model's layers: which can be compressed, and how to copy and replace them."""

import copy
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize, prune
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from compression.errors import CompressionError, UnsupportedTypeError

PLAIN = (Tensor, nn.Parameter, nn.Buffer)
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
COMPRESSIBLE = (nn.Linear, *CONVOLUTIONS, nn.ConvTranspose2d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


def compressible_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Return the model's convolutions and linear layers by dotted name, after check_model."""
    check_model(model)
    layers: dict[str, nn.Module] = {
        name: m for name, m in model.named_modules() if isinstance(m, COMPRESSIBLE)
    }
    if not layers:
        raise nothing_compressible(model)
    return layers


def nothing_compressible(model: nn.Module) -> CompressionError:
    """Return what to raise for a network without a layer that a technique knows."""
    kinds = sorted({type(m).__name__ for m in model.modules()})
    return CompressionError(
        "the model has no compressible layer: expected a convolution, nn.Linear, attention or a "
        "recurrent layer, found " + ", ".join(kinds)
    )


def check_model(model: nn.Module) -> None:
    """Refuse, by name, tensors that hold no plain numbers or numbers that are not finite.

    Weights that are computed at each call are refused too: what is written to them would be lost. A
    buffer that is no running statistic may hold -inf, as the mask of an attention does. Raises
    UnsupportedTypeError for the kind of a tensor, CompressionError for its numbers.
    """
    check_module(model)
    for name, remedy in _computed_tensors(model):
        raise UnsupportedTypeError(
            f"{name}: expected a tensor that is stored, found one that is computed at each call; "
            f"make it plain first, by {remedy}"
        )
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if isinstance(tensor, nn.UninitializedParameter | nn.UninitializedBuffer):
            raise UnsupportedTypeError(
                f"{name}: expected a tensor with data, found one of a lazy layer that has no shape "
                "yet; call the network once"
            )
        if tensor.is_meta or tensor.layout != torch.strided or tensor.is_quantized:
            kind = "meta" if tensor.is_meta else "quantized" if tensor.is_quantized else "sparse"
            raise UnsupportedTypeError(f"{name}: expected a dense tensor with data, found {kind}")
        if type(tensor) not in PLAIN:
            raise UnsupportedTypeError(f"{name}: expected a plain tensor, found {type(tensor)}")
        if tensor.is_floating_point() or tensor.is_complex():
            # float8 has no isfinite before torch 2.15
            numbers = tensor if tensor.itemsize > 1 else tensor.float()
            usable = torch.isfinite(numbers)
            if not isinstance(tensor, nn.Parameter) and "running_" not in name:
                usable |= numbers == -torch.inf
            bad = int((~usable).sum())
            if bad:
                raise CompressionError(
                    f"{name}: expected finite weights, found {bad} of {tensor.numel()} NaN or "
                    "infinite; was the training stable?"
                )


def check_module(model: object) -> None:
    """Raise UnsupportedTypeError for what is no network (nn.Module)."""
    if not isinstance(model, nn.Module):
        raise UnsupportedTypeError(f"expected a network (nn.Module), found {type(model).__name__}")


def _computed_tensors(model: nn.Module) -> Iterator[tuple[str, str]]:
    """Yield the tensors that hooks or parametrizations compute, and what makes them plain."""
    for prefix, module in model.named_modules():
        dot = f"{prefix}." if prefix else ""
        if parametrize.is_parametrized(module):
            for name in module.parametrizations:  # type: ignore[union-attr]
                yield f"{dot}{name}", "torch.nn.utils.parametrize.remove_parametrizations"
        for hook in module._forward_pre_hooks.values():
            if isinstance(hook, prune.BasePruningMethod):
                yield f"{dot}{hook._tensor_name}", "torch.nn.utils.prune.remove"
            elif isinstance(hook, WeightNorm):
                yield f"{dot}{hook.name}", "torch.nn.utils.remove_weight_norm"
            elif isinstance(hook, SpectralNorm):
                yield f"{dot}{hook.name}", "torch.nn.utils.remove_spectral_norm"


def alteration(layer: nn.Module) -> str | None:
    """Say why a call of `layer` may compute something other than its class's forward; None if not.

    Hooks, a forward of the instance's own, and a weight that is computed at each call would be lost
    where `layer` is replaced by what its class and its tensors say.
    """
    if type(layer).__module__.split(".")[0] != "torch":
        return f"{type(layer).__qualname__} is a class of your own: it may compute something else"
    return alteration_of_call(layer)


def alteration_of_call(layer: nn.Module) -> str | None:
    """Say what of the instance changes what its class's forward computes; None for nothing."""
    if "forward" in vars(layer):
        return "its forward was replaced on the instance"
    hooks = (layer._forward_hooks, layer._forward_pre_hooks)
    if any(hooks):
        return "it has forward hooks; remove them first"
    if parametrize.is_parametrized(layer):
        return (
            "its weight is computed by a parametrization; make it plain first, by "
            "torch.nn.utils.parametrize.remove_parametrizations"
        )
    return None


def record_left_out(model: nn.Module, left_out: Mapping[str, str]) -> None:
    """Note on `model` what a technique left as it was: dotted names of weights, and the reasons."""
    model._left_out = dict(left_out)  # type: ignore[assignment]


def left_out(model: nn.Module) -> dict[str, str]:
    """Return what the latest technique left as it was: the weights by dotted name, and why.

    It is known of a network as a technique returned it; a file does not hold it.

    >>> left_out(nn.Linear(2, 2))
    {}
    """
    return dict(getattr(model, "_left_out", {}))  # type: ignore[arg-type]


def copy_model(model: nn.Module) -> nn.Module:
    """Return a copy with storage of its own; tied tensors stay tied.

    UnsupportedTypeError for what cannot be copied, and how to make it plain.
    """
    check_module(model)
    try:
        copied = copy.deepcopy(model)
    except torch.OutOfMemoryError:
        raise
    except AssertionError as error:  # a network that `fully_shard` has divided
        raise UnsupportedTypeError(
            f"{type(model).__name__} cannot be copied ({error}); compress it before it is sharded"
        ) from error
    # A weight that torch.nn.utils.prune computes at each call, a lock, an open file.
    except (RuntimeError, TypeError, AttributeError, NotImplementedError) as error:
        name, remedy = next(_computed_tensors(model), ("what it computes", "detaching it"))
        raise UnsupportedTypeError(
            f"{type(model).__name__} cannot be copied ({error}); make {name} plain first, by {remedy}"
        ) from error
    first: dict[object, str] = {}
    for name, tensor in model.named_parameters(remove_duplicate=False):
        twin = first.setdefault(same_memory(tensor), name)
        if twin != name:  # two parameters on one memory would come apart
            parent, _, attribute = name.rpartition(".")
            setattr(copied.get_submodule(parent), attribute, copied.get_parameter(twin))
    return copied


def replace_layer(model: nn.Module, name: str, layer: nn.Module) -> None:
    """Put `layer` at the dotted `name` of `model`, in place."""
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, layer)


def replace_everywhere(model: nn.Module, old: nn.Module, new: nn.Module) -> None:
    """Put `new` at every place of `model` where `old` stands, in place."""
    for parent in list(model.modules()):
        for name, child in parent._modules.items():
            if child is old:
                parent._modules[name] = new


def failing_module(model: nn.Module, error: BaseException) -> str:
    """Return the dotted name of the module of `model` in whose forward `error` was raised."""
    names = {id(module): name for name, module in model.named_modules()}
    place, trace = "", error.__traceback__
    while trace is not None:
        place = names.get(id(trace.tb_frame.f_locals.get("self")), place)
        trace = trace.tb_next
    return place or type(model).__name__


def channel_axis(layer: nn.Module) -> int:
    """Return the weight's axis of output channels: 1 for a transposed convolution, else 0.

    The output channels of a grouped transposed convolution lie along no axis: see `filters`.
    """
    return 1 if isinstance(layer, TRANSPOSED) else 0


def filters(weight: Tensor, layer: nn.Module) -> Tensor:
    """Return `weight` of `layer` as (output channels, input channels of a group, ...).

    That is a weight's own layout but for transposed convolutions, whose weight lies as (inputs,
    outputs of a group, *kernel). The result may be a view.
    """
    if not isinstance(layer, TRANSPOSED):
        return weight
    grouped = weight.unflatten(0, (layer.groups, -1)).transpose(1, 2)
    return grouped.flatten(0, 1)


def unfilters(rows: Tensor, layer: nn.Module) -> Tensor:
    """Return what `filters` returned, or another tensor of its shape, in the weight's own layout."""
    if not isinstance(layer, TRANSPOSED):
        return rows
    grouped = rows.unflatten(0, (layer.groups, -1)).transpose(1, 2)
    return grouped.flatten(0, 1)


def parameter_tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield what counts as a parameter, once where it is tied: nn.Parameters, and integer codes.

    Quantized layers name their buffers of codes and bias in the class attribute parameter_buffers.
    Tied are those that view the same memory alike.
    """
    seen = set()
    named = dict(model.named_parameters())
    for prefix, module in model.named_modules():
        for name in getattr(module, "parameter_buffers", ()):
            named[f"{prefix}.{name}" if prefix else name] = getattr(module, name)
    for name, tensor in named.items():
        if tensor is not None and (key := same_memory(tensor)) not in seen:
            seen.add(key)
            yield name, tensor


def same_memory(tensor: Tensor) -> object:
    """Return a key that two tensors share where they are tied: the same view of the same memory."""
    if type(tensor) not in PLAIN or tensor.is_meta or not tensor.numel():
        return id(tensor)
    return tensor.device, tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride()
