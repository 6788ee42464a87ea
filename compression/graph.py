"""A model's traced graph: what it computes, batch norms folded."""

from typing import Any

from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from compression.errors import UnsupportedTypeError
from compression.layers import copy_model, replace_layer


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
