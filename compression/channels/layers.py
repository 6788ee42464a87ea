"""Layers with weights: what they read, what they make, and what goes with it."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, fx, nn

from compression.channels.values import Value
from compression.channels.walk import Product, Walk, fixed
from compression.layers import CONVOLUTIONS, TRANSPOSED
from compression.narrow import BATCH_NORMS, INSTANCE_NORMS

_PER_CHANNEL = ("weight", "bias", "running_mean", "running_var")


def layer(walk: Walk, node: fx.Node, module: Any, shape: tuple[int, ...]) -> Value | None:
    """Return what a layer with weights gives, of a known shape; None for another module."""
    kind, name = type(module), str(node.target)
    if kind in (*CONVOLUTIONS, *TRANSPOSED):
        return _convolution(walk, node, name, module, shape)
    if kind is nn.Linear:
        return _linear(walk, node, name, module, shape)
    if kind in (*BATCH_NORMS, *INSTANCE_NORMS):
        return _per_channel(walk, node, name, module)
    if kind is nn.GroupNorm:
        return _group_norm(walk, node, name, module)
    if kind is nn.LayerNorm:
        return _layer_norm(walk, node, module)
    if kind is nn.PReLU:
        return _prelu(walk, node, name, module)
    if kind is nn.Embedding:
        return _embedding(walk, node, name, module, shape)
    return None


def _convolution(
    walk: Walk, node: fx.Node, name: str, module: Any, shape: tuple[int, ...]
) -> Value:
    value = walk.first(node)
    axis = len(shape) - 1 - len(module.kernel_size)
    if value.axis not in (None, axis):
        walk.freeze(node, "a convolution's windows cross its channels", value)
    inputs, groups = value.along(axis), module.groups
    rows, columns = (0, 1) if not isinstance(module, TRANSPOSED) else (1, 0)
    per_group: Tensor | None = inputs.view(groups, -1)[0]
    if groups > 1 and len(inputs) == groups:  # depthwise: each output is of one input's group
        outputs, per_group = inputs.repeat_interleave(module.out_channels // groups), None
        walk.count(name, "groups", inputs)
        if isinstance(module, TRANSPOSED):
            walk.own(node, name, "weight", 0, inputs)
        else:
            walk.own(node, name, "weight", 0, outputs)
    else:
        outputs = walk.made_by(name, module.out_channels)
        if groups > 1:
            _unite_groups(walk, node, inputs, groups)
            _unite_groups(walk, node, outputs, groups)
        own = outputs.view(groups, -1)[0] if rows else outputs
        walk.own(node, name, "weight", rows, own, makes=True)
        walk.own(node, name, "weight", columns, inputs if rows else inputs.view(groups, -1)[0])
    walk.own(node, name, "bias", 0, outputs)
    walk.count(name, "in_channels", inputs)
    walk.count(name, "out_channels", outputs)
    positions = _numel(value.shape if rows else shape) // (len(inputs) if rows else len(outputs))
    macs = module.weight.numel() * positions
    walk.channels.products.append(Product(name, macs, outputs, per_group, value.shape))
    return Value(shape, axis, outputs, vanishes=True)


def _unite_groups(walk: Walk, node: fx.Node, labels: Tensor, groups: int) -> None:
    """Let the same offset of each group go together: the groups keep one size."""
    table = labels.view(groups, -1)
    walk.unite(node, table[1:].reshape(-1), table[:1].expand(groups - 1, -1).reshape(-1))


def _linear(walk: Walk, node: fx.Node, name: str, module: Any, shape: tuple[int, ...]) -> Value:
    value = walk.first(node)
    last = len(shape) - 1
    inputs, outputs = value.along(last), walk.made_by(name, module.out_features)
    walk.own(node, name, "weight", 0, outputs, makes=True)
    walk.own(node, name, "weight", 1, inputs)
    walk.own(node, name, "bias", 0, outputs)
    walk.count(name, "in_features", inputs)
    walk.count(name, "out_features", outputs)
    macs = _numel(shape) * len(inputs)
    if value.axis in (None, last):
        walk.channels.products.append(Product(name, macs, outputs, inputs, value.shape))
        return Value(shape, last, outputs, vanishes=True)
    # It runs over another axis than its inputs' channels, which pass.
    walk.freeze(node, "its inputs' channels lie along another axis", Value(shape, last, outputs))
    walk.channels.products.append(
        Product(name, macs, value.along(value.axis or 0), None, value.shape)
    )
    return Value(shape, value.axis, value.labels, value.vanishes and module.bias is None)


def _per_channel(walk: Walk, node: fx.Node, name: str, module: Any) -> Value:
    value = walk.first(node)
    instance = isinstance(module, INSTANCE_NORMS)
    axis = len(value.shape) - 1 - int(type(module).__name__[-2]) if instance else 1
    if value.axis not in (None, axis):
        walk.freeze(node, f"{type(module).__name__} averages its channels", value)
        value = Value(value.shape)
    labels = value.along(axis)
    for tensor in _PER_CHANNEL:
        walk.own(node, name, tensor, 0, labels)
    walk.count(name, "num_features", labels)
    return _scaled(value, module)


def _scaled(value: Value, module: Any) -> Value:
    """Return what a norm gives: where its scale and shift are 0, so is the channel."""
    return replace(value, vanishes=value.vanishes or module.weight is not None)


def _group_norm(walk: Walk, node: fx.Node, name: str, module: Any) -> Value:
    value, groups = walk.first(node), module.num_groups
    if value.axis not in (None, 1) or groups == 1:
        walk.freeze(node, "GroupNorm's mean and variance count its channels", value)
    labels = value.along(1)
    table = labels.view(groups, -1)
    walk.unite(node, table[:, 1:].reshape(-1), table[:, :1].expand_as(table[:, 1:]).reshape(-1))
    walk.own(node, name, "weight", 0, labels)
    walk.own(node, name, "bias", 0, labels)
    walk.count(name, "num_channels", labels)
    walk.count(name, "num_groups", table[:, 0])
    return _scaled(value, module)


def _layer_norm(walk: Walk, node: fx.Node, module: Any) -> Value:
    value = walk.first(node)
    if value.axis is not None and value.axis >= len(value.shape) - len(module.normalized_shape):
        walk.freeze(node, "LayerNorm's mean and variance count its channels", value)
    return replace(value, vanishes=False)


def _prelu(walk: Walk, node: fx.Node, name: str, module: Any) -> Value:
    value = walk.first(node)
    if module.num_parameters > 1:
        if value.axis not in (None, 1):
            walk.freeze(node, "PReLU's slopes lie along another axis", value)
        walk.own(node, name, "weight", 0, value.along(1))
        walk.count(name, "num_parameters", value.along(1))
    return value


def _embedding(walk: Walk, node: fx.Node, name: str, module: Any, shape: tuple[int, ...]) -> Value:
    walk.freeze(node, "an embedding looks its channels up", *walk.inputs(node))
    outputs = walk.made_by(name, module.embedding_dim)
    walk.own(node, name, "weight", 0, fixed(module.num_embeddings))
    walk.own(node, name, "weight", 1, outputs, makes=True)
    walk.count(name, "embedding_dim", outputs)
    return Value(shape, len(shape) - 1, outputs, vanishes=True)


def _numel(shape: tuple[int, ...]) -> int:
    return int(torch.Size(shape).numel())
