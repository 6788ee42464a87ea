"""A model's layers: which can be compressed, and how to copy, replace and fuse them."""

import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from compression.errors import CompressionError, UnsupportedTypeError

PLAIN = (Tensor, nn.Parameter, nn.Buffer)
COMPRESSIBLE = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d)


def compressible_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Return the model's convolutions and linear layers by dotted name, after check_model."""
    check_model(model)
    layers: dict[str, nn.Module] = {
        name: m for name, m in model.named_modules() if isinstance(m, COMPRESSIBLE)
    }
    if not layers:
        kinds = sorted({type(m).__name__ for m in model.modules()})
        raise CompressionError(
            "the model has no compressible layer: expected a convolution or nn.Linear, found "
            + ", ".join(kinds)
        )
    return layers


def check_model(model: nn.Module) -> None:
    """Refuse, by name, tensors that hold no plain numbers or numbers that are not finite."""
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if tensor.is_meta or tensor.layout != torch.strided or tensor.is_quantized:
            kind = "meta" if tensor.is_meta else "quantized" if tensor.is_quantized else "sparse"
            raise UnsupportedTypeError(f"{name}: expected a dense tensor with data, found {kind}")
        if type(tensor) not in PLAIN:
            raise UnsupportedTypeError(f"{name}: expected a plain tensor, found {type(tensor)}")
        if tensor.is_floating_point():
            # float8 has no isfinite before torch 2.15
            numbers = tensor if tensor.itemsize > 1 else tensor.float()
            bad = int((~torch.isfinite(numbers)).sum())
            if bad:
                raise CompressionError(
                    f"{name}: expected finite weights, found {bad} of {tensor.numel()} NaN or "
                    "infinite; was the training stable?"
                )


def copy_model(model: nn.Module) -> nn.Module:
    """Return a copy with storage of its own; tied tensors stay tied."""
    try:
        return copy.deepcopy(model)
    except RuntimeError as error:  # a weight that torch.nn.utils.prune computes at each call
        raise UnsupportedTypeError(
            f"{type(model).__name__} cannot be copied ({error}); make computed weights plain first, "
            "by torch.nn.utils.prune.remove"
        ) from error


def replace_layer(model: nn.Module, name: str, layer: nn.Module) -> None:
    """Put `layer` at the dotted `name` of `model`, in place."""
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, layer)


def channel_axis(layer: nn.Module) -> int:
    """Return the weight's axis of output channels: 1 for a transposed convolution, else 0."""
    return 1 if isinstance(layer, nn.ConvTranspose2d) else 0


def trace(model: nn.Module) -> fx.GraphModule:
    """Return a copy of `model` in eval mode as a torch.fx graph of its leaf layers."""
    try:
        return fx.symbolic_trace(copy_model(model).eval())
    except (fx.proxy.TraceError, TypeError, RuntimeError) as error:
        raise UnsupportedTypeError(
            f"{type(model).__name__} cannot be traced by torch.fx ({error}); the forward must not "
            "branch on the data"
        ) from error


def fold_batch_norm(model: nn.Module) -> fx.GraphModule:
    """Return a traced copy in eval mode with each batch norm folded into the layer before it.

    Its outputs equal the eval outputs of `model` to 1e-5; a batch norm with no convolution or
    linear layer of its own right before it stays.
    """
    traced = trace(model)
    modules = dict(traced.named_modules())
    for node in list(traced.graph.nodes):
        norm = modules.get(str(node.target)) if node.op == "call_module" else None
        if not isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d):
            continue
        before = node.args[0]
        layer = modules.get(str(before.target)) if before.op == "call_module" else None
        if layer is None or len(before.users) > 1 or _calls(traced, before.target) > 1:
            continue
        fused = _fuse(layer, norm)
        if fused is not None:
            replace_layer(traced, str(before.target), fused)
            modules[str(before.target)] = fused
            node.replace_all_uses_with(before)
            traced.graph.erase_node(node)
    traced.delete_all_unused_submodules()
    traced.recompile()
    return traced


def norms_as_convolutions(traced: fx.GraphModule) -> fx.GraphModule:
    """Replace, in place, each 2-d batch norm by the depthwise 1x1 convolution that it is in eval."""
    for name, norm in list(traced.named_modules()):
        if isinstance(norm, nn.BatchNorm2d) and norm.running_mean is not None:
            count = norm.num_features
            identity = nn.Conv2d(count, count, 1, groups=count, bias=False).to(
                norm.running_mean.device
            )
            nn.init.ones_(identity.weight)
            replace_layer(traced, name, fuse_conv_bn_eval(identity.eval(), norm.eval()))
    return traced


def _fuse(layer: nn.Module, norm: Any) -> nn.Module | None:
    if norm.running_mean is None:  # statistics of the batch: nothing constant to fold
        return None
    if isinstance(layer, nn.Linear):
        return fuse_linear_bn_eval(layer, norm)
    if isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d):
        return fuse_conv_bn_eval(layer, norm)
    if isinstance(layer, nn.ConvTranspose2d) and layer.groups == 1:
        return fuse_conv_bn_eval(layer, norm, transpose=True)
    return None


def _calls(traced: fx.GraphModule, target: Any) -> int:
    return sum(node.op == "call_module" and node.target == target for node in traced.graph.nodes)


def parameter_tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield what counts as a parameter, once where it is tied: nn.Parameters, and integer codes.

    Quantized layers name their buffers of codes and bias in the class attribute parameter_buffers.
    """
    yield from model.named_parameters()
    for prefix, module in model.named_modules():
        for name in getattr(module, "parameter_buffers", ()):
            tensor = getattr(module, name)
            if tensor is not None:
                yield f"{prefix}.{name}" if prefix else name, tensor
