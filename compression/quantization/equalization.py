"""Cross-layer equalization and bias correction (Nagel et al. 2019, arXiv:1906.04721)."""

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from compression.affine import choose_qparams, dequantize, quantize
from compression.layers import copy_model, filters, replace_layer
from compression.quantization.layer import LAYERS

_POSITIVE = (nn.ReLU, F.relu, torch.relu, "relu")  # f(s x) = s f(x) for s > 0, unlike ReLU6


@torch.no_grad()
def unshare_layers(folded: fx.GraphModule) -> fx.GraphModule:
    """Give each call of a layer a layer of its own, in place, and each layer tensors of its own.

    What is good for one call need not be good for another; the names are those that the plan gives.
    """
    layers = dict(folded.named_modules())
    called: set[str] = set()
    for node in folded.graph.nodes:
        layer: Any = layers.get(str(node.target)) if node.op == "call_module" else None
        if type(layer) not in LAYERS:
            continue
        name = str(node.target)
        while name in called:
            name = f"{name}_again"
        called.add(name)
        own: Any = copy_model(layer)
        replace_layer(folded, name, own)
        node.target = name
    folded.recompile()
    return folded


@torch.no_grad()
def equalize(folded: fx.GraphModule) -> int:
    """Rescale, in place, the channels between pairs of convolutions so that both ranges agree.

    Channel i between W1 and W2 is divided by s_i = sqrt(r1_i r2_i) / r2_i in W1 and b1, and multiplied
    by it in W2, where r are the channels' largest magnitudes (their equation 11). Outputs stay. A
    pair is two convolutions with at most a ReLU between and no other reader. Returns the pairs.
    """
    layers = dict(folded.named_modules())
    pairs = 0
    for node in folded.graph.nodes:
        first: Any = layers.get(str(node.target)) if node.op == "call_module" else None
        if not isinstance(first, nn.Conv2d):
            continue
        reader = _reader(node, layers)
        second: Any = None if reader is None else layers.get(str(reader.target))
        if not isinstance(second, nn.Conv2d) or second.groups not in (1, second.in_channels):
            continue
        depthwise = second.groups != 1
        if depthwise and second.out_channels != second.in_channels:
            continue
        before = first.weight.abs().amax(dim=(1, 2, 3))
        after = second.weight.abs().amax(dim=(1, 2, 3) if depthwise else (0, 2, 3))
        factor = torch.sqrt(before / after)
        usable = torch.isfinite(factor) & (factor > 0)
        factor = torch.where(usable, factor, torch.ones_like(factor))
        first.weight /= factor.view(-1, 1, 1, 1)
        if first.bias is not None:
            first.bias /= factor
        second.weight *= factor.view((-1, 1, 1, 1) if depthwise else (1, -1, 1, 1))
        pairs += 1
    return pairs


def _reader(node: fx.Node, layers: Mapping[str, nn.Module]) -> fx.Node | None:
    """Return the only layer that reads `node`, or a ReLU of it."""
    for _ in range(2):
        users = list(node.users)
        if len(users) != 1:
            return None
        user = users[0]
        layer = layers.get(str(user.target)) if user.op == "call_module" else None
        if (type(layer) if layer is not None else user.target) not in _POSITIVE:
            return user if layer is not None else None
        node = user
    return None


@torch.no_grad()
def correct_bias(
    folded: fx.GraphModule,
    means: Mapping[str, Tensor],
    last_means: Mapping[str, Tensor] | None = None,
    rounded: Mapping[str, Tensor] = MappingProxyType({}),
) -> int:
    """Take out, in place, what rounding the weights adds to each output channel on average.

    `means` holds the mean of each channel, dimension 1, of a node's value, by the node's name, and
    `last_means` that along its last dimension, a linear layer's channels. The correction of an output
    channel is - sum over inputs of (W_quantized - W) E[x] (their equation 17, with E[x] from
    calibration; padding is ignored). `rounded` holds weights as `filters` lays them out, by layer,
    that are not rounded to the nearest. Returns how many layers were corrected.
    """
    layers = dict(folded.named_modules())
    corrected = 0
    for node in folded.graph.nodes:
        layer: Any = layers.get(str(node.target)) if node.op == "call_module" else None
        if type(layer) not in LAYERS:
            continue
        linear = isinstance(layer, nn.Linear)
        source = node.all_input_nodes[0].name
        mean = ((last_means if linear else None) or means)[source]
        weight = filters(layer.weight, layer)
        name = str(node.target)
        error = (rounded[name] if name in rounded else _nearest(weight)) - weight
        error = error.flatten(2).sum(2) if error.ndim > 2 else error
        groups = getattr(layer, "groups", 1)
        inputs = mean.to(error.device).view(groups, 1, -1)
        shift = (error.view(groups, -1, error.shape[1]) * inputs).sum(2).flatten()
        if isinstance(layer, nn.modules.conv._ConvTransposeNd):
            shift /= math.prod(layer.stride)  # of a stride's outputs, each gets its share of taps
        if layer.bias is None:
            layer.bias = nn.Parameter(torch.zeros_like(shift))
        layer.bias -= shift
        corrected += 1
    return corrected


def _nearest(weight: Tensor) -> Tensor:
    qparams = choose_qparams(weight, axis=0)
    return dequantize(quantize(weight, qparams), qparams)
