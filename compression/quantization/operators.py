"""What the operators of a traced network mean to codes: pools, clamps, scalings, data movement."""

import math
import operator
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional as F

from compression.errors import UnsupportedTypeError
from compression.graph import place_of
from compression.quantization.modules import MeanOver

Bounds = tuple[float | None, float | None]

ADD = {operator.add, torch.add, "add"}
CONCATENATE = {torch.cat, torch.concat, torch.concatenate}
_SCALINGS: dict[Any, str] = {
    **dict.fromkeys(ADD, "add"), operator.sub: "sub", torch.sub: "sub", "sub": "sub",
    operator.mul: "mul", torch.mul: "mul", "mul": "mul", operator.truediv: "div",
    torch.div: "div", torch.true_divide: "div", "div": "div", operator.neg: "neg",
    torch.neg: "neg", "neg": "neg",
}  # fmt: skip
_DROPOUTS = (
    F.dropout, F.dropout1d, F.dropout2d, F.dropout3d, F.alpha_dropout, F.feature_alpha_dropout,
    torch.dropout,
)  # fmt: skip
_SAME = {
    nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout,
    nn.FeatureAlphaDropout, "contiguous", "clone", torch.clone, "detach", "float",
}  # fmt: skip
_MOVES = {
    nn.Flatten, nn.Unflatten, torch.flatten, "flatten", "unflatten", torch.unflatten, "view",
    "reshape", torch.reshape, "squeeze", torch.squeeze, "unsqueeze", torch.unsqueeze, "permute",
    torch.permute, "transpose", torch.transpose, operator.getitem, "swapaxes", torch.swapaxes,
    "movedim", torch.movedim, "t", torch.t, "narrow", torch.narrow, "select", torch.select, "flip",
    torch.flip, "roll", torch.roll, nn.PixelShuffle, nn.PixelUnshuffle, nn.ChannelShuffle,
    F.pixel_shuffle, F.pixel_unshuffle, F.channel_shuffle,
}  # fmt: skip
_PARTS = {
    torch.chunk, "chunk", torch.split, "split", torch.split_with_sizes, "split_with_sizes",
    torch.tensor_split, "tensor_split", torch.unbind, "unbind", torch.hsplit, "hsplit",
}  # fmt: skip
_WINDOW = ("kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices")
_AVERAGE = ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad")
_MAX_POOLS: dict[Any, tuple[type[nn.Module], tuple[str, ...]]] = {
    F.max_pool1d: (nn.MaxPool1d, _WINDOW), torch.max_pool1d: (nn.MaxPool1d, _WINDOW),
    F.max_pool2d: (nn.MaxPool2d, _WINDOW), torch.max_pool2d: (nn.MaxPool2d, _WINDOW),
    F.max_pool3d: (nn.MaxPool3d, _WINDOW), torch.max_pool3d: (nn.MaxPool3d, _WINDOW),
    F.adaptive_max_pool1d: (nn.AdaptiveMaxPool1d, ("output_size", "return_indices")),
    F.adaptive_max_pool2d: (nn.AdaptiveMaxPool2d, ("output_size", "return_indices")),
    F.adaptive_max_pool3d: (nn.AdaptiveMaxPool3d, ("output_size", "return_indices")),
}  # fmt: skip
_MEAN_POOLS: dict[Any, tuple[type[nn.Module], tuple[str, ...]]] = {
    F.avg_pool1d: (nn.AvgPool1d, _AVERAGE),
    F.avg_pool2d: (nn.AvgPool2d, (*_AVERAGE, "divisor_override")),
    F.avg_pool3d: (nn.AvgPool3d, (*_AVERAGE, "divisor_override")),
    F.adaptive_avg_pool1d: (nn.AdaptiveAvgPool1d, ("output_size",)),
    torch.adaptive_avg_pool1d: (nn.AdaptiveAvgPool1d, ("output_size",)),
    F.adaptive_avg_pool2d: (nn.AdaptiveAvgPool2d, ("output_size",)),
    F.adaptive_avg_pool3d: (nn.AdaptiveAvgPool3d, ("output_size",)),
}
_KNOWN = (
    "it knows convolutions, linear layers, batch norm, activations, clamps, additions, products, "
    "concatenation, pooling, means, LayerNorm, attention, reshaping, slices, splits, shuffles, nearest "
    "and linear interpolation and dropout"
)


def kind_of(node: fx.Node, layer: nn.Module | None) -> Any:
    """Return what a node applies: a layer's class, a function, or a method's name."""
    if layer is not None:
        return type(layer)
    return node.target if node.op in ("call_function", "call_method") else None


def unknown_operator(node: fx.Node, kind: Any, found: str = "") -> UnsupportedTypeError:
    """Return the error for an operator, or for what was `found` of it, with its place."""
    name = getattr(kind, "__name__", kind if kind is not None else node.target)
    return UnsupportedTypeError(
        f"static INT8 does not know the operator {name}{found} at {place_of(node)}; {_KNOWN}; "
        "quantize_static(fallback=True) leaves in float what reads codes and parameters"
    )


def argument(node: fx.Node, position: int, name: str, default: Any = None) -> Any:
    """Return an argument given by position or by name."""
    return node.args[position] if len(node.args) > position else node.kwargs.get(name, default)


def keeps_values(node: fx.Node, kind: Any) -> bool:
    """Tell whether a node returns its input as it is."""
    if kind in _DROPOUTS:
        if argument(node, 2, "training", kind is not torch.dropout) is not False:
            raise unknown_operator(
                node, kind, " that stays active in eval (pass training=self.training)"
            )
        return True
    if getattr(kind, "__name__", "") == "stochastic_depth":  # torchvision's, which is not imported
        return argument(node, 3, "training", True) is False
    return is_one_of(kind, _SAME)


def gives_several(kind: Any) -> bool:
    """Tell whether an operator splits its input into several values."""
    return is_one_of(kind, _PARTS)


def moves_values(node: fx.Node, kind: Any, numbers: set[fx.Node]) -> bool:
    """Tell whether a node puts its input's values elsewhere, by plain numbers or sizes."""
    if not (is_one_of(kind, _MOVES) or is_one_of(kind, _PARTS)):
        return False
    given: list[Any] = [*node.args[1:], *(v for k, v in node.kwargs.items() if k != "input")]
    if not all(are_numbers(a, numbers) for a in given):
        raise unknown_operator(node, kind, " by a tensor or a dtype")
    return True


def clamp_bounds(node: fx.Node, kind: Any, layer: Any) -> Bounds | None:
    """Return the ends of a clamp, None for none; None for another operator."""
    low: Any
    high: Any
    if kind in (nn.ReLU, F.relu, torch.relu, "relu"):
        low, high = 0.0, None
    elif kind in (nn.ReLU6, F.relu6):
        low, high = 0.0, 6.0
    elif kind is nn.Hardtanh:
        low, high = layer.min_val, layer.max_val
    elif kind is F.hardtanh:
        low, high = argument(node, 1, "min_val", -1.0), argument(node, 2, "max_val", 1.0)
    elif kind in (torch.clamp, "clamp", torch.clip, "clip"):
        low, high = argument(node, 1, "min"), argument(node, 2, "max")
    elif kind in (torch.clamp_min, "clamp_min"):
        low, high = argument(node, 1, "min"), None
    elif kind in (torch.clamp_max, "clamp_max"):
        low, high = None, argument(node, 1, "max")
    else:
        return None
    if not all(bound is None or _is_number(bound) for bound in (low, high)):
        raise unknown_operator(node, kind, " with bounds that are no finite numbers")
    if low is not None and high is not None and low > high:
        raise unknown_operator(node, kind, f" with the bounds {low} and {high}")
    return low, high


def scaling_of(node: fx.Node, kind: Any) -> tuple[float, float] | None:
    """Return (factor, offset) of an operator with plain numbers; None for another."""
    name = _SCALINGS.get(kind) if is_one_of(kind, _SCALINGS) else None
    values: list[Any] = [argument(node, 0, "input"), argument(node, 1, "other")]
    numbers = [v for v in values if _is_number(v)]
    if name is None or len(numbers) != (0 if name == "neg" else 1):
        return None
    if not set(node.kwargs) <= {"input", "other", "alpha"}:
        raise unknown_operator(node, kind, f" with {', '.join(node.kwargs)}")
    alpha = argument(node, 2, "alpha", 1)
    if name == "neg":
        return -1.0, 0.0
    number, first = float(numbers[0]), _is_number(values[0])
    if (first and (name == "div" or alpha != 1)) or (name == "div" and number == 0):
        return None
    match name:
        case "add":
            return 1.0, number * alpha
        case "sub":
            return (-1.0, number) if first else (1.0, -number * alpha)
        case "mul":
            return number, 0.0
    return 1.0 / number, 0.0


def addends_of(node: fx.Node, kind: Any) -> list[fx.Node] | None:
    """Return the two tensors of a plain addition; None for another operator."""
    if not is_one_of(kind, ADD) or argument(node, 2, "alpha", 1) != 1:
        return None
    values = [argument(node, 0, "input"), argument(node, 1, "other")]
    return values if all(isinstance(v, fx.Node) for v in values) else None


def max_pool_of(node: fx.Node, kind: Any, layer: nn.Module | None) -> nn.Module | None:
    """Return a max-pool as a layer; None for another operator."""
    layers = {made for made, _ in _MAX_POOLS.values()}
    if not (is_one_of(kind, layers) or is_one_of(kind, _MAX_POOLS)):
        return None
    pool: Any = layer or _as_layer(node, kind, *_MAX_POOLS[kind])
    if pool.return_indices:
        raise unknown_operator(node, kind, " that returns indices")
    return pool  # type: ignore[no-any-return]


def mean_of(node: fx.Node, kind: Any, layer: nn.Module | None) -> nn.Module | None:
    """Return an average as a layer; None for another operator."""
    if is_one_of(kind, {made for made, _ in _MEAN_POOLS.values()}):
        return layer
    if is_one_of(kind, _MEAN_POOLS):
        return _as_layer(node, kind, *_MEAN_POOLS[kind])
    if kind not in ("mean", torch.mean):
        return None
    dims = argument(node, 1, "dim", ())
    dims = () if dims is None else (dims,) if isinstance(dims, int) else tuple(dims)
    if not set(node.kwargs) <= {"input", "dim", "keepdim"} or not all(type(d) is int for d in dims):
        raise unknown_operator(node, kind, " with a dtype, or over dimensions that are no numbers")
    return MeanOver(dims, keepdim=bool(argument(node, 2, "keepdim", False)))


def _as_layer(node: fx.Node, kind: Any, made: type[nn.Module], names: tuple[str, ...]) -> nn.Module:
    options = {**dict(zip(names, node.args[1:], strict=False)), **node.kwargs}
    options.pop("input", None)
    if not all(are_numbers(v, set()) for v in options.values()):
        raise unknown_operator(node, kind, " by the size of a tensor (use an adaptive pool)")
    if made.__name__ == "MaxPool1d" or options.get("stride") == []:
        options["stride"] = options.get("stride") or None
    module: nn.Module = made(**options)
    return module


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def are_numbers(value: Any, numbers: set[fx.Node]) -> bool:
    """Tell whether an argument is made of plain numbers, slices and sizes."""
    if isinstance(value, tuple | list):
        return all(are_numbers(v, numbers) for v in value)
    if isinstance(value, slice):
        return all(are_numbers(v, numbers) for v in (value.start, value.stop, value.step))
    if isinstance(value, fx.Node):
        return value in numbers
    return value is None or value is ... or type(value) in (int, float, bool)


def is_one_of(kind: Any, known: Any) -> bool:
    """Tell whether an operator is among some."""
    # By identity or text: a function's == may be anything, and a class may not be hashable.
    return any(kind is k or (isinstance(kind, str) and kind == k) for k in known)
