"""Batch norms of a traced graph: folded into the layer before, or convolutions of their own."""

from collections.abc import Callable, Collection
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from compression.graph.functional import with_parts
from compression.graph.inplace import number_nodes
from compression.graph.tracing import trace
from compression.layers import CONVOLUTIONS, TRANSPOSED, replace_layer

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


class ChannelScale(nn.Conv1d):
    """A BatchNorm1d in eval: a factor and a shift per channel of inputs (N, C) or (N, C, L)."""

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the scaled channels, in the shape of `inputs`."""
        if inputs.ndim == 2:
            return super().forward(inputs.unsqueeze(-1)).squeeze(-1)
        return super().forward(inputs)


def fold_batch_norm(model: nn.Module) -> fx.GraphModule:
    """Return a traced copy in eval mode with each batch norm folded into the convolution before it.

    Its outputs equal the eval outputs of `model` to 1e-5. A batch norm with no convolution of its own
    right before it stays, and so does one after a linear layer, whose channels it normalizes only
    where the inputs are rows (N, C). Raises what `trace` raises.

    >>> folded = fold_batch_norm(nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)))
    >>> any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    False
    """
    return _fold(trace(model), CONVOLUTIONS + TRANSPOSED)


def fold_row_norms(traced: fx.GraphModule, token_norms: Collection[str] = ()) -> fx.GraphModule:
    """Fold the batch norms of `traced`, in place, those after linear layers too.

    Those called `token_norms` stay: they read (N, L, C) and normalize dimension 1, while the channels
    of a linear layer are the last.
    """
    return _fold(traced, (*CONVOLUTIONS, *TRANSPOSED, nn.Linear), token_norms)


def row_norms(traced: fx.GraphModule) -> list[fx.Node]:
    """Return the batch norms of `traced` that read a linear layer: folded only where it gives rows."""
    modules = dict(traced.named_modules())
    return [
        node
        for node, before, norm in _norms(traced, modules)
        if _reads_rows(modules.get(str(before.target)), norm)
    ]


def _fold(
    traced: fx.GraphModule, kinds: tuple[type[nn.Module], ...], kept: Collection[str] = ()
) -> fx.GraphModule:
    modules, numbers = dict(traced.named_modules()), number_nodes(traced.graph)
    for node, before, norm in _norms(traced, modules):
        layer = modules.get(str(before.target)) if before.op == "call_module" else None
        if layer is None or type(layer) not in kinds or node.target in kept:
            continue
        if isinstance(layer, nn.Linear) and not _reads_rows(layer, norm):
            continue
        if len(before.users.keys() - numbers) > 1 or _calls(traced, before.target) > 1:
            continue
        fused = _fuse(layer, norm)
        if fused is not None:
            replace_layer(traced, str(before.target), fused)
            modules[str(before.target)] = fused
            replace_layer(traced, str(node.target), with_parts(nn.Module(), norm))
            node.replace_all_uses_with(before)
            traced.graph.erase_node(node)
    traced.delete_all_unused_submodules()
    traced.recompile()
    return traced


def _reads_rows(layer: nn.Module | None, norm: nn.Module) -> bool:
    return isinstance(layer, nn.Linear) and isinstance(norm, nn.BatchNorm1d)


def _norms(
    traced: fx.GraphModule, modules: dict[str, nn.Module]
) -> list[tuple[fx.Node, fx.Node, Any]]:
    """Return the nodes of batch norms with constant statistics, what they read, and the norms."""
    found = []
    for node in traced.graph.nodes:
        norm = modules.get(str(node.target)) if node.op == "call_module" else None
        if isinstance(norm, _NORMS) and norm.running_mean is not None and node.all_input_nodes:
            found.append((node, node.all_input_nodes[0], norm))
    return found


def norms_as_convolutions(traced: fx.GraphModule) -> fx.GraphModule:
    """Replace, in place, each batch norm by the depthwise convolution of 1 that it is in eval."""
    kinds: dict[type[nn.Module], Callable[..., nn.Module]] = dict(
        zip(_NORMS, (ChannelScale, nn.Conv2d, nn.Conv3d), strict=True)
    )
    for name, norm in list(traced.named_modules()):
        if isinstance(norm, _NORMS) and norm.running_mean is not None:
            count = norm.num_features
            identity: Any = kinds[type(norm)](count, count, 1, groups=count, bias=False)
            nn.init.ones_(identity.weight)
            _make_affine(norm)
            identity = identity.to(norm.running_mean.device, norm.running_mean.dtype)
            scale = fuse_conv_bn_eval(identity.eval(), norm.eval())
            replace_layer(traced, name, with_parts(scale, norm))
    return traced


def _fuse(layer: nn.Module, norm: Any) -> nn.Module | None:
    _make_affine(norm)
    if isinstance(layer, nn.Linear):
        return fuse_linear_bn_eval(layer, norm) if layer.out_features == norm.num_features else None
    if layer.out_channels != norm.num_features:  # an image without a batch: rows are its channels
        return None
    if isinstance(layer, CONVOLUTIONS):
        return fuse_conv_bn_eval(layer, norm)  # type: ignore[type-var]
    return fuse_conv_bn_eval(layer, norm, transpose=True) if layer.groups == 1 else None  # type: ignore[type-var]


def _make_affine(norm: Any) -> None:
    """Give a norm without a factor and a shift of its own 1 and 0, which change nothing."""
    if norm.weight is None:
        norm.weight = nn.Parameter(torch.ones_like(norm.running_mean))
    if norm.bias is None:
        norm.bias = nn.Parameter(torch.zeros_like(norm.running_mean))


def _calls(traced: fx.GraphModule, target: Any) -> int:
    return sum(node.op == "call_module" and node.target == target for node in traced.graph.nodes)
