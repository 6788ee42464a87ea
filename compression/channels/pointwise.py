"""Operators that keep each channel to itself: activations, sums and products, pools, means."""

from typing import Any

from torch import fx, nn

from compression.channels.values import Found, Value
from compression.channels.walk import Walk, name_of

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
    "minimum", "where", "lerp", "addcmul", "eq", "ne", "gt", "ge", "lt", "le",
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
# fmt: on
_DIVISIONS = ("div", "truediv", "true_divide")
_STACKED = (nn.Softmax, nn.LogSoftmax, nn.Softmin)


def pointwise(walk: Walk, node: fx.Node, module: Any) -> Found | None:
    """Return what a node gives whose channels keep to themselves; None for another operator."""
    name, kind = name_of(node.target), type(module)
    if kind in UNARY_LAYERS or (module is None and name in ELEMENTWISE):
        return elementwise(walk, node)
    if kind in WINDOW_LAYERS or (module is None and name in WINDOWS):
        return _window(walk, node)
    if module is None and name in REDUCTIONS:
        return _reduction(walk, node)
    if kind in _STACKED or (module is None and name in NORMALIZATIONS):
        return _normalization(walk, node, module, name)
    return None


def elementwise(walk: Walk, node: fx.Node) -> Value:
    """Unite the channels of what is combined number by number; a size of 1 asks for nothing."""
    shape = walk.shape(node)
    sources = [n for n in node.all_input_nodes if isinstance(walk.values.get(n), Value)]
    wide = {source: walk.value(source).widened(len(shape)) for source in sources}
    labelled = [value for value in wide.values() if value.labels is not None]
    if not labelled:
        return Value(shape)
    first = labelled[0]
    axis, labels = first.channels
    if name_of(node.target) in _DIVISIONS and wide[sources[-1]].labels is not None:
        walk.freeze(node, "a channel that is divided by", first, wide[sources[-1]])
    for source, value in wide.items():
        if value.labels is not None and value.axis != axis:
            walk.freeze(node, "its channels lie along two axes", first, value)
        elif value.labels is not None:
            walk.unite(node, labels, value.labels)
        elif value.shape[axis] > 1 and not walk.own_parameter(node, source, first):
            walk.freeze(node, "combined with channels that stay", first)
    return Value(shape, axis, labels)


def _window(walk: Walk, node: fx.Node) -> Found:
    """Windows run over the last axes: a channel among them is frozen."""
    value = walk.first(node)
    shape = walk.shapes[node]
    if isinstance(shape, list) or value.axis is None:
        walk.freeze(node, "its indices count channels", value)
        return walk.unlabelled(node)
    if value.axis > 1 or value.shape[: value.axis + 1] != shape[: value.axis + 1]:
        walk.freeze(node, "windows cross its channels", value)
    return Value(shape, value.axis, value.labels)


def _reduction(walk: Walk, node: fx.Node) -> Found:
    value = walk.first(node)
    name = name_of(node.target)
    if len(walk.inputs(node)) > 1 or value.axis is None:
        return elementwise(walk, node) if name in ("max", "min") else _lost(walk, node, value)
    found = walk.shapes[node]
    dims = _dims(node, "dim", len(value.shape), 2 if name == "norm" else 1)
    if dims is None or value.axis in dims:
        return _lost(walk, node, value)
    shape = found[0] if isinstance(found, list) else found
    gone = 0 if len(shape) == len(value.shape) else sum(dim < value.axis for dim in dims)
    reduced = Value(shape, value.axis - gone, value.labels)
    return (reduced,) * len(found) if isinstance(found, list) else reduced


def _lost(walk: Walk, node: fx.Node, value: Value) -> Found:
    walk.freeze(node, f"{name_of(node.target)} counts its channels", value)
    return walk.unlabelled(node)


def _normalization(walk: Walk, node: fx.Node, module: Any, name: str) -> Value:
    value = walk.first(node)
    dims = (module.dim,) if module is not None else _dims(node, "dim", len(value.shape), 1)
    if module is None and dims is None and name == "normalize":
        dims = (1,)
    axes = None if dims is None or None in dims else {dim % len(value.shape) for dim in dims}
    if axes is None or value.axis in axes:
        walk.freeze(node, f"{type(module).__name__ if module else name} counts its channels", value)
    return Value(walk.shape(node), value.axis, value.labels)


def _dims(node: fx.Node, name: str, ndim: int, position: int) -> tuple[int, ...] | None:
    """Return the axes that a node names, counted from the first; None where it names none."""
    given = node.args[position] if len(node.args) > position else node.kwargs.get(name)
    listed = given if isinstance(given, list | tuple) else (given,)
    if not listed or not all(isinstance(dim, int) for dim in listed):
        return None
    return tuple(dim % ndim for dim in listed if isinstance(dim, int))
