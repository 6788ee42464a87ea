"""The operators that become a table of codes, or a product of two values."""

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from compression.quantization.functions import Applied
from compression.quantization.interpolation import LINEAR, Resizing
from compression.quantization.operators import (
    are_numbers,
    argument,
    is_one_of,
    unknown_operator,
)

_LAYERS = {
    nn.SiLU, nn.Hardswish, nn.Sigmoid, nn.Hardsigmoid, nn.GELU, nn.Tanh, nn.ELU, nn.SELU, nn.CELU,
    nn.LeakyReLU, nn.Softplus, nn.Softsign, nn.Mish, nn.LogSigmoid, nn.Tanhshrink, nn.Hardshrink,
    nn.Softshrink, nn.Threshold,
}  # fmt: skip
_FUNCTIONS = {
    F.silu, F.hardswish, F.sigmoid, torch.sigmoid, "sigmoid", F.hardsigmoid, F.gelu, F.tanh,
    torch.tanh, "tanh", F.elu, F.selu, torch.selu, F.celu, torch.celu, F.leaky_relu, F.softplus,
    F.softsign, F.mish, F.logsigmoid, F.tanhshrink, F.hardshrink, F.softshrink, F.threshold,
    torch.threshold, torch.abs, "abs", torch.square, "square", torch.exp, "exp", torch.erf, "erf",
}  # fmt: skip
_POWERS = {operator.pow, torch.pow, "pow"}
_PRODUCTS = {operator.mul, torch.mul, "mul", torch.multiply, "multiply"}
_INTERPOLATE = (
    ("size", None), ("scale_factor", None), ("mode", "nearest"), ("align_corners", None),
    ("recompute_scale_factor", None),
)  # fmt: skip
_PLAIN = (int, float, bool, str, type(None))


def function_of(
    node: fx.Node, kind: Any, layer: nn.Module | None
) -> Callable[[Tensor], Tensor] | None:
    """Return a function of single numbers; None for another operator."""
    if layer is not None:
        alone = type(layer) is nn.PReLU and layer.num_parameters == 1
        return layer if alone or is_one_of(kind, _LAYERS) else None
    if is_one_of(kind, _POWERS):
        exponent = argument(node, 1, "exponent")
        if type(exponent) is not int or exponent < 1:
            return None
    elif not is_one_of(kind, _FUNCTIONS):
        return None
    args = node.args[1:]
    kwargs = {name: value for name, value in node.kwargs.items() if name != "input"}
    if not all(isinstance(value, _PLAIN) for value in (*args, *kwargs.values())):
        raise unknown_operator(node, kind, " with arguments that are no plain numbers")
    return Applied(kind, args, kwargs)


def factors_of(node: fx.Node, kind: Any) -> list[fx.Node] | None:
    """Return the two tensors of a product; None for another operator."""
    if not is_one_of(kind, _PRODUCTS):
        return None
    values = [argument(node, 0, "input"), argument(node, 1, "other")]
    return values if all(isinstance(v, fx.Node) for v in values) else None


@dataclass(frozen=True, slots=True)
class Interpolated:
    """An interpolation: its mode, how it resizes, and the size that it resizes to, if any."""

    mode: str
    resizing: Resizing
    sizes: tuple[Any, ...]

    def nearest(self) -> Applied:
        """Return the function of an interpolation that repeats numbers, of a value and its sizes."""
        options = {
            "recompute_scale_factor": self.resizing.recompute_scale_factor,
            "mode": self.mode,
        }
        if not self.sizes:
            options["scale_factor"] = self.resizing.scale_factor
        return Applied(F.interpolate, (), options)


def interpolation_of(
    node: fx.Node, kind: Any, layer: nn.Module | None, numbers: set[fx.Node]
) -> Interpolated | None:
    """Return an interpolation that repeats numbers or is linear; None for another operator."""
    told: list[Any]
    if isinstance(layer, nn.Upsample):
        names = ("size", "scale_factor", "mode", "align_corners", "recompute_scale_factor")
        told, antialias = [getattr(layer, name) for name in names], False
    elif kind is F.interpolate:
        told = [
            argument(node, i + 1, name, default) for i, (name, default) in enumerate(_INTERPOLATE)
        ]
        antialias = argument(node, 6, "antialias", False)
    else:
        return None
    size, factor, mode, corners, recomputed = told
    if mode not in ("nearest", "nearest-exact", *LINEAR) or antialias:
        return None
    if not (are_numbers(size, numbers) and _plain(factor)):
        raise unknown_operator(node, kind, " to the size of a tensor (use a scale_factor)")
    sizes = () if size is None else (size,)
    return Interpolated(str(mode), Resizing(factor, corners, recomputed), sizes)


def _plain(value: Any) -> bool:
    values = value if isinstance(value, list | tuple) else [value]
    return all(isinstance(v, _PLAIN) for v in values)
