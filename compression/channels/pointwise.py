"""Operators that keep each channel to itself: activations, sums and products, pools, means."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import fx, nn

from compression.channels.values import Found, Value
from compression.channels.walk import Walk, fixed, name_of

# fmt: off
UNARY_LAYERS = (
    nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout,
    nn.FeatureAlphaDropout, nn.ReLU, nn.ReLU6, nn.Hardtanh, nn.Hardswish, nn.Hardsigmoid, nn.SiLU,
    nn.GELU, nn.ELU, nn.CELU, nn.SELU, nn.LeakyReLU, nn.Sigmoid, nn.Tanh, nn.Softplus, nn.Softsign,
    nn.Mish, nn.LogSigmoid, nn.Tanhshrink, nn.Softshrink, nn.Hardshrink, nn.Threshold, nn.RReLU,
)
WINDOW_LAYERS = (
    nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d,
    nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d, nn.AdaptiveMaxPool1d,
    nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d, nn.LPPool1d, nn.LPPool2d, nn.Upsample,
    nn.UpsamplingNearest2d, nn.UpsamplingBilinear2d, nn.ReflectionPad1d, nn.ReflectionPad2d,
    nn.ReflectionPad3d, nn.ReplicationPad1d, nn.ReplicationPad2d, nn.ReplicationPad3d, nn.ZeroPad1d,
    nn.ZeroPad2d, nn.ZeroPad3d, nn.ConstantPad1d, nn.ConstantPad2d, nn.ConstantPad3d,
    nn.CircularPad1d, nn.CircularPad2d, nn.CircularPad3d,
)
ELEMENTWISE = frozenset([
    "relu", "relu6", "hardtanh", "hardswish", "hardsigmoid", "silu", "gelu", "elu", "celu", "selu",
    "leaky_relu", "sigmoid", "tanh", "softplus", "softsign", "mish", "logsigmoid", "tanhshrink",
    "softshrink", "hardshrink", "threshold", "dropout", "dropout1d", "dropout2d", "dropout3d",
    "alpha_dropout", "feature_alpha_dropout", "abs", "neg", "pos", "positive", "exp", "expm1", "log",
    "log1p", "sqrt", "rsqrt", "square", "sin", "cos", "erf", "sign", "round", "floor", "ceil", "clamp",
    "clip", "clamp_min", "clamp_max", "nan_to_num", "reciprocal", "contiguous", "clone", "detach", "to",
    "type", "float", "double", "half", "bfloat16", "stochastic_depth", "logical_not",
    "add", "sub", "mul", "multiply", "subtract", "div", "truediv", "true_divide", "pow", "maximum",
    "minimum", "where", "zeros_like", "ones_like", "full_like", "empty_like", "type_as",
    "lerp", "addcmul", "masked_fill", "eq", "ne", "gt", "ge", "lt", "le",
])
WINDOWS = frozenset([
    "max_pool1d", "max_pool2d", "max_pool3d", "avg_pool1d", "avg_pool2d", "avg_pool3d",
    "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d", "adaptive_max_pool1d",
    "adaptive_max_pool2d", "adaptive_max_pool3d", "interpolate", "upsample",
])
REDUCTIONS = frozenset([
    "mean", "sum", "amax", "amin", "max", "min", "var", "std", "norm", "prod", "logsumexp",
])
NORMALIZATIONS = frozenset(["softmax", "log_softmax", "softmin", "cumsum", "cumprod", "normalize"])
# What gives 0 for 0.
_VANISHING = frozenset([
    "relu", "relu6", "hardswish", "silu", "gelu", "elu", "celu", "selu", "leaky_relu", "tanh",
    "softsign", "mish", "tanhshrink", "softshrink", "hardshrink", "dropout", "dropout1d", "dropout2d",
    "dropout3d", "abs", "neg", "pos", "positive", "expm1", "log1p", "sqrt", "square", "sin", "erf",
    "sign", "round", "floor", "ceil", "contiguous", "clone", "detach", "to", "type", "float", "double",
    "half", "bfloat16", "stochastic_depth", "zeros_like", "type_as", "add", "sub", "subtract",
    "maximum", "minimum",
])
_VANISHING_LAYERS = (
    nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.ReLU, nn.ReLU6, nn.Hardswish,
    nn.SiLU, nn.GELU, nn.ELU, nn.CELU, nn.SELU, nn.LeakyReLU, nn.Tanh, nn.Softsign, nn.Mish,
    nn.Tanhshrink, nn.Softshrink, nn.Hardshrink, nn.RReLU,
)
_PADS = (nn.ConstantPad1d, nn.ConstantPad2d, nn.ConstantPad3d)
_SINGULAR = frozenset(["log", "rsqrt", "reciprocal"])
# fmt: on
_PRODUCTS = ("mul", "multiply")
_DIVISIONS = ("div", "truediv", "true_divide")
_STACKED = (nn.Softmax, nn.LogSoftmax, nn.Softmin)


def pointwise(walk: Walk, node: fx.Node, module: Any) -> Found | None:
    """Return what a node gives whose channels keep to themselves; None for another operator."""
    name, kind = name_of(node.target), type(module)
    if kind in UNARY_LAYERS or (module is None and name in ELEMENTWISE):
        return elementwise(walk, node)
    if kind in WINDOW_LAYERS or (module is None and name in WINDOWS):
        return _window(walk, node, module)
    if module is None and name in REDUCTIONS:
        return _reduction(walk, node)
    if kind in _STACKED or (module is None and name in NORMALIZATIONS):
        return _normalization(walk, node, module, name)
    if module is None and name == "pad":
        return pad(walk, node)
    if kind is nn.GLU or (module is None and name == "glu"):
        return _gated(walk, node, module)
    return None


def elementwise(walk: Walk, node: fx.Node) -> Value:
    """Unite the channels of what is combined number by number; a size of 1 asks for nothing."""
    shape = walk.shape(node)
    wide = {source: walk.value(source).widened(len(shape)) for source in _sources(walk, node)}
    labelled = [source for source, value in wide.items() if value.labels is not None]
    if not labelled:
        return Value(shape)
    first = wide[min(labelled, key=lambda source: source in walk.parameters)]
    axis, labels = first.channels
    for source in labelled:
        across = wide[source].axis != axis and wide[source].shape[axis] == 1
        if source in walk.parameters and across:  # a vector that is no channel's
            walk.freeze(node, "its numbers lie along another axis", wide[source])
            wide[source] = Value(wide[source].shape)
    walk.freeze(node, "a channel of zeros gives no number", *_divisors(node, wide))
    for source, value in wide.items():
        if value.labels is not None and value.axis != axis:
            walk.freeze(node, "its channels lie along two axes", first, value)
        elif value.labels is not None:
            walk.unite(node, labels, value.labels)
        elif value.shape[axis] > 1 and not walk.own_parameter(node, source, first):
            walk.freeze(node, "combined with channels that stay", first)
    return Value(shape, axis, labels, _vanishes(walk, node, wide))


def _sources(walk: Walk, node: fx.Node) -> list[fx.Node]:
    """Return the tensors that are combined."""
    found = [n for n in node.all_input_nodes if isinstance(walk.values.get(n), Value)]
    return found[:1] if name_of(node.target) in ("to", "type_as") else found  # the others: a format


def _divisors(node: fx.Node, wide: Mapping[fx.Node, Value]) -> list[Value]:
    """Return the values that an operator divides by, or of which it takes a logarithm."""
    name = name_of(node.target)
    if name in _SINGULAR:
        return list(wide.values())
    if name in _DIVISIONS:
        divisor = node.args[1] if len(node.args) > 1 else node.kwargs.get("other")
        return [wide[divisor]] if divisor in wide else []  # type: ignore[index]
    if name == "pow":
        exponent = node.args[1] if len(node.args) > 1 else node.kwargs.get("exponent")
        safe = isinstance(exponent, int | float) and exponent >= 0
        return [] if safe else list(wide.values())
    return []


def _vanishes(walk: Walk, node: fx.Node, wide: Mapping[fx.Node, Value]) -> bool:
    """Tell whether what is combined gives 0 where a channel's weights are."""
    if node.op == "call_module":
        known = isinstance(walk.modules[str(node.target)], _VANISHING_LAYERS)
        return known and all(value.vanishes for value in wide.values())
    name = name_of(node.target)
    if name in _PRODUCTS:
        return any(value.vanishes for value in wide.values())
    if name in _DIVISIONS:
        return node.args[0] in wide and wide[node.args[0]].vanishes  # type: ignore[index]
    sums = name not in ("add", "sub", "subtract", "maximum", "minimum") or all(
        isinstance(arg, fx.Node) for arg in node.args
    )
    return name in _VANISHING and sums and all(value.vanishes for value in wide.values())


def _window(walk: Walk, node: fx.Node, module: Any) -> Found:
    """Windows run over the last axes: a channel among them is frozen."""
    value = walk.first(node)
    shape = walk.shapes[node]
    if isinstance(shape, list) or value.axis is None:
        walk.freeze(node, "its indices count channels", value)
        return walk.unlabelled(node)
    name = name_of(node.target) if module is None else type(module).__name__
    counted = [int(letter) for letter in name if letter.isdigit()]
    windows = counted[0] if counted else len(shape) - 2  # interpolation is over all of them
    if value.axis >= len(shape) - windows:
        walk.freeze(node, "windows cross its channels", value)
        return Value(shape)
    return Value(shape, value.axis, value.labels, value.vanishes and type(module) not in _PADS)


def pad(walk: Walk, node: fx.Node) -> Found:
    """Borders of other axes let channels be; those of their own are channels that stay."""
    value = walk.first(node)
    shape = walk.shape(node)
    if value.axis is None:
        return Value(shape)
    sizes = node.args[1] if len(node.args) > 1 else node.kwargs.get("pad")
    mode = node.args[2] if len(node.args) > 2 else node.kwargs.get("mode", "constant")
    place = 2 * (len(shape) - 1 - value.axis)
    own = sizes[place : place + 2] if isinstance(sizes, list | tuple) else [None]
    labels = value.channels[1]
    if any(own):
        if mode != "constant" or not all(isinstance(n, int) and n >= 0 for n in own):
            walk.freeze(node, "its border counts channels", value)
            return Value(shape)
        labels = torch.cat([fixed(int(own[0])), labels, fixed(int(own[1]))])  # type: ignore[arg-type]
    return Value(shape, value.axis, labels)


def _gated(walk: Walk, node: fx.Node, module: Any) -> Value:
    """The halves of a gated linear unit go together."""
    value, shape = walk.first(node), walk.shape(node)
    dims = (module.dim,) if module is not None else _dims(node, "dim", len(shape), 1) or (-1,)
    if value.axis is None or value.axis != dims[0] % len(shape):
        return Value(shape, value.axis, value.labels, value.vanishes)
    first, second = value.channels[1].chunk(2)
    walk.unite(node, first, second)
    return Value(shape, value.axis, first, value.vanishes)


def _reduction(walk: Walk, node: fx.Node) -> Found:
    value = walk.first(node)
    name = name_of(node.target)
    if len(walk.inputs(node)) > 1 or value.axis is None:
        paired = name in ("max", "min") and not walk.gives_several(node)
        return elementwise(walk, node) if paired else _lost(walk, node, value)
    found = walk.shapes[node]
    dims = _dims(node, "dim", len(value.shape), 2 if name == "norm" else 1)
    if dims is None or value.axis in dims:
        return _lost(walk, node, value)
    shape = found[0] if isinstance(found, list) else found
    gone = 0 if len(shape) == len(value.shape) else sum(dim < value.axis for dim in dims)
    vanishes = value.vanishes and name not in ("prod", "logsumexp")
    reduced = Value(shape, value.axis - gone, value.labels, vanishes)
    return (reduced,) * len(found) if isinstance(found, list) else reduced


def _lost(walk: Walk, node: fx.Node, value: Value) -> Found:
    walk.freeze(node, f"{name_of(node.target)} counts its channels", value)
    return walk.unlabelled(node)


def _normalization(walk: Walk, node: fx.Node, module: Any, name: str) -> Value:
    value = walk.first(node)
    position = 2 if name == "normalize" else 1
    dims = (module.dim,) if module is not None else _dims(node, "dim", len(value.shape), position)
    if dims is None and name == "normalize" and len(node.args) < 3 and "dim" not in node.kwargs:
        dims = (1,)
    axes = None if dims is None or None in dims else {dim % len(value.shape) for dim in dims}
    if axes is None or value.axis in axes:
        walk.freeze(node, f"{type(module).__name__ if module else name} counts its channels", value)
    vanishes = value.vanishes and name in ("normalize", "cumsum")
    return Value(walk.shape(node), value.axis, value.labels, vanishes)


def _dims(node: fx.Node, name: str, ndim: int, position: int) -> tuple[int, ...] | None:
    """Return the axes that a node names, counted from the first; None where it names none."""
    given = node.args[position] if len(node.args) > position else node.kwargs.get(name)
    listed = given if isinstance(given, list | tuple) else (given,)
    if not listed or not all(type(dim) is int for dim in listed):  # a bool is another option
        return None
    return tuple(dim % ndim for dim in listed if isinstance(dim, int))
