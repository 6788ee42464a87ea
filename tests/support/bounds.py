"""How far a network on 8-bit codes can lie from its real values, element by element.

The forward is run in float64 on pairs (value, bound). Every operator passes its operands' bounds on
(a layer by the magnitudes of its weights), adds what rounding its own weights can do, and then half a
code of its own output, as if every value were rounded: a network that rounds fewer errs less.
Sound for ranges of the smallest and largest value, on the inputs of the calibration only: a value
clipped to its range comes closer to what it should be.
"""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compression.nested import tensors_in

LEVELS = 255
SLACK = 3e-5
"""Of the largest value: float32 sums, and a bias that is rounded to 31 bits of its own."""
QUERIES = {"__get__", "size", "dim", "__len__", "numel", "ndimension", "stride", "is_contiguous"}
SHAPES = {
    "flatten", "view", "reshape", "permute", "transpose", "squeeze", "unsqueeze", "__getitem__",
    "contiguous", "dropout", "dropout2d", "expand", "detach", "clone", "movedim", "swapaxes",
    "chunk", "split", "unbind", "flip", "roll", "pixel_shuffle", "pixel_unshuffle",
    "channel_shuffle", "interpolate", "narrow",
}  # fmt: skip
# Neither moves a value further than its operand moved.
GENTLE = {"abs", "relu", "relu6", "hardtanh", "clamp", "clip", "clamp_min", "clamp_max"}
# By what a function multiplies the distance of two numbers, at most.
SLOPES = {
    "silu": 1.1, "hardswish": 1.5, "sigmoid": 0.25, "hardsigmoid": 1 / 6, "gelu": 1.13, "tanh": 1.0,
    "elu": 1.0, "leaky_relu": 1.0, "softplus": 1.0, "mish": 1.09, "softsign": 1.0, "erf": 1.13,
}  # fmt: skip
POSITIVE = {  # linear with weights above 0, or a maximum: the bounds go the values' way
    "max_pool1d", "max_pool2d", "max_pool3d", "avg_pool1d", "avg_pool2d", "avg_pool3d", "mean",
    "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d", "cat", "concat",
    "adaptive_max_pool1d", "adaptive_max_pool2d", "adaptive_max_pool3d",
}  # fmt: skip
IN_PLACE = {"relu_", "relu6_", "hardtanh_", "clamp_", "clip_", "add_", "__iadd__"}
LAYERS = {
    "linear", "conv1d", "conv2d", "conv3d",
    "conv_transpose1d", "conv_transpose2d", "conv_transpose3d",
}  # fmt: skip


class UnboundedError(Exception):
    """The network does something whose error this file does not know."""


@dataclass(frozen=True)
class Rounding:
    """What is rounded: values to `codes` of their 8-bit codes, weights to codes of so many levels.

    `relative` and `smallest` are a floating format's rounding of every value and weight;
    `linear_only` rounds the
    inputs and the weights of linear layers, and nothing else.
    """

    codes: float = 0.0
    weight_levels: float = math.inf
    relative: float = 0.0
    smallest: float = 0.0
    linear_only: bool = False


STATIC = Rounding(codes=0.5, weight_levels=127)
EXECUTORS = Rounding(codes=1.0)
"""Two executors of the same codes, of which each rounds ties its own way."""
DYNAMIC = Rounding(codes=0.5, weight_levels=127, linear_only=True)
BFLOAT16 = Rounding(relative=2.0**-7)  # twice its unit: products are rounded on their way too
FLOAT16 = Rounding(relative=2.0**-10, smallest=2.0**-24)


def of_bits(num_bits: int) -> Rounding:
    """Return the rounding of weights to symmetric codes."""
    return Rounding(weight_levels=2 ** (num_bits - 1) - 1)


class Bounded(Tensor):
    """A float64 tensor that carries a bound on each element's error."""

    error: Tensor
    rounding: Rounding

    @classmethod
    def __torch_function__(
        cls, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        name = func.__name__.removeprefix("boolean_dispatch")
        first = next(a for a in _flat((*args, *kwargs.values())) if isinstance(a, Bounded))
        with torch._C.DisableTorchFunctionSubclass():
            if name in QUERIES:
                return func(*_each(args, _value), **_each(kwargs, _value))
            if name in SHAPES:
                value = func(*_each(args, _value), **_each(kwargs, _value))
                error = func(*_each(args, _error), **_each(kwargs, _error))
                if isinstance(value, tuple | list):
                    parts = zip(value, error, strict=True)
                    return tuple(_like(first, *part, aliased=True) for part in parts)
                return _like(first, value, error, aliased=True)
            in_place = name in IN_PLACE or kwargs.pop("inplace", False)
            args = list(args)
            if len(args) > 1 and args[-1] is True and name in ("relu", "relu6", "hardtanh"):
                in_place, args = True, args[:-1]
            value, error = _rule(name, func, args, kwargs, first)
            how = first.rounding
            codes = 0.0 if how.linear_only else how.codes
            error = error + codes * _step(value) + how.relative * value.abs() + how.smallest
            if value.numel():
                error = error + SLACK * value.abs().amax()
            if in_place:
                _value(first).copy_(value)
                first.error.copy_(error)
                return first
            return _like(first, value, error)


def bounded_run(
    net: nn.Module, inputs: tuple[Tensor, ...], rounding: Rounding
) -> list[tuple[Tensor, Tensor]]:
    """Return each output's float64 values and bounds, of a network that rounds so."""
    pairs = []
    for x in inputs:
        root = x.double().clone().as_subclass(Bounded)
        root.rounding = rounding
        with torch._C.DisableTorchFunctionSubclass():
            value = _value(root)
            codes = 0.0 if rounding.linear_only else rounding.codes
            root.error = codes * _step(value) + rounding.relative * value.abs()
        pairs.append(root)
    with torch.no_grad():
        found = list(tensors_in(copy.deepcopy(net).double().eval()(*pairs)))
    bounded = [leaf for leaf in found if isinstance(leaf, Bounded)]
    if len(bounded) < len(found):
        raise UnboundedError(f"outputs {[type(leaf).__name__ for leaf in found]}")
    return [(_value(leaf), leaf.error) for leaf in bounded]


def _rule(
    name: str, func: Callable[..., Any], args: list[Any], kwargs: dict[str, Any], first: Bounded
) -> tuple[Tensor, Tensor]:
    """Return an operator's values, and the bounds that its operands' bounds lead to."""
    name = name.rstrip("_") if not name.startswith("__") else name
    values = _each(args, _value)
    if name in GENTLE:
        plain = getattr(F, name, None) or getattr(torch, name)
        return plain(*values, **kwargs), first.error
    if name in SLOPES:
        return func(*values, **kwargs), first.error * SLOPES[name]
    if name in ("mul", "__mul__") and all(isinstance(a, Bounded) for a in args) and not kwargs:
        x, y = values
        dx, dy = (a.error for a in args)
        return x * y, x.abs() * dy + y.abs() * dx + dx * dy
    if name in POSITIVE:
        named = _each(kwargs, _value)
        return func(*values, **named), func(*_each(args, _error), **_each(kwargs, _error))
    if name in ("add", "__iadd__", "__radd__", "sub") and not kwargs:
        errors = [a.error if isinstance(a, Bounded) else 0.0 for a in args]
        sign = -1 if name == "sub" else 1
        return values[0] + sign * values[1], errors[0] + errors[1] + torch.zeros_like(values[0])
    scalars = [a for a in args if not isinstance(a, Tensor)]
    if name in ("mul", "__rmul__", "div", "__truediv__") and len(scalars) == 1:
        factor = 1 / scalars[0] if name in ("div", "__truediv__") else scalars[0]
        return _value(first) * factor, first.error * abs(factor)
    if name in LAYERS:
        bound = dict(zip(("input", "weight", "bias"), args, strict=False)) | kwargs
        return _layer(name, func, bound, args[3:], first)
    if name == "batch_norm":
        return _norm(args, kwargs, first)
    raise UnboundedError(name)


def _layer(
    name: str, func: Callable[..., Any], operands: dict[str, Any], rest: list[Any], first: Bounded
) -> tuple[Tensor, Tensor]:
    weight, bias = operands.pop("weight"), operands.pop("bias", None)
    x = operands.pop("input")
    if not isinstance(x, Bounded) or isinstance(weight, Bounded):
        raise UnboundedError(f"{name} of a computed weight")
    how = first.rounding
    axis = 1 if "transpose" in name else 0
    others = [d for d in range(weight.ndim) if d != axis]
    # A grouped transposed layer may have a finer step for each group.
    scale = weight.abs().amax(others, keepdim=True) / how.weight_levels
    codes = 0.0
    if how.linear_only:
        scale, codes = (scale, how.codes) if name == "linear" else (scale * 0, 0.0)
    halves = scale.expand_as(weight) / 2 + how.relative * weight.abs() + how.smallest

    def apply(inputs: Tensor, factors: Tensor) -> Tensor:
        found: Tensor = func(inputs, factors, None, *rest, **operands)
        return found

    values = _value(x)
    doubt = x.error + codes * _step(values) + how.relative * values.abs()
    magnitude = apply(doubt, weight.abs() + halves) + apply(values.abs(), halves)
    shown = func(values, weight, bias, *rest, **operands)
    # The bias is rounded too: to steps of input scale x weight scale, or as all numbers are.
    # A value that was 0 all along in calibration has codes of 0 to 1.
    own = (_step(values) if values.any() else 1 / LEVELS) * scale.max()
    if bias is not None:
        own = own + how.relative * bias.abs().max()
    return shown, magnitude + own


def _norm(args: list[Any], kwargs: dict[str, Any], first: Bounded) -> tuple[Tensor, Tensor]:
    names = ("x", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps")
    given: dict[str, Any] = dict(zip(names, args, strict=False)) | kwargs
    x, mean, variance = (given[name] for name in names[:3])
    weight, bias, eps = given["weight"], given["bias"], given["eps"]
    if given["training"] or mean is None:
        raise UnboundedError("batch norm in training")
    factor = torch.rsqrt(variance + eps) * (1.0 if weight is None else weight)
    shape = (-1, *[1] * (x.ndim - 2))
    value = F.batch_norm(_value(x), mean, variance, weight, bias, False, 0.0, eps)
    how, magnitude = x.rounding, factor.abs().view(shape)
    steps = 0.0 if how.linear_only or not how.codes else 1.0
    error = x.error * magnitude + steps * _step(_value(x)) * magnitude / 127
    if how.relative:
        terms = (_value(x).abs() + mean.abs().view(shape)) * magnitude
        terms = terms if bias is None else terms + bias.abs().view(shape)
        error = error + 3 * how.relative * terms
    return value, error


def _step(value: Tensor) -> Tensor:
    """Return the step of the codes whose range is that of `value`, and 0."""
    if not value.numel():
        return torch.zeros((), dtype=value.dtype)
    low, high = value.amin().clamp(max=0), value.amax().clamp(min=0)
    return (high - low) / LEVELS


def _like(first: Bounded, value: Tensor, error: Tensor, *, aliased: bool = False) -> Bounded:
    found = value.as_subclass(Bounded)
    # In the order of the value, so that a later view of one is a view of the other.
    found.error = error if aliased else torch.empty_like(value).copy_(error)
    found.rounding = first.rounding
    return found


def _value(item: Any) -> Any:
    return item.as_subclass(Tensor) if isinstance(item, Bounded) else item


def _error(item: Any) -> Any:
    return item.error if isinstance(item, Bounded) else item


def _each(items: Any, change: Callable[[Any], Any]) -> Any:
    if isinstance(items, dict):
        return {key: _each(item, change) for key, item in items.items()}
    if isinstance(items, list | tuple):
        return type(items)(_each(item, change) for item in items)
    return change(items)


def _flat(items: Any) -> list[Any]:
    if isinstance(items, list | tuple):
        return [leaf for item in items for leaf in _flat(item)]
    return [items]
