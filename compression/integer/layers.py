"""Networks whose layers alone hold codes: each layer on a kernel, or dequantized once."""

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn

from compression.errors import CompressionError
from compression.integer.native import missing, native_linear
from compression.layers import copy_model, failing_module, replace_everywhere
from compression.modes import evaluating
from compression.quantization import (
    CastModel,
    DynamicQuantizedLinear,
    WeightQuantizedLayer,
    WeightQuantizedRecurrent,
)
from compression.quantization.coded import in_float
from compression.quantization.replacement import CodedLayer

MOST_ROWS = 64
"""Rows of an input up to which a kernel that unpacks weights is as fast as torch's on real ones."""
_ROUNDING = 16 * 2.0**-24
"""Of the sum of a dot product's magnitudes, per root of its terms: what two orders of it differ by."""


def has_coded_layers(model: nn.Module) -> bool:
    """Tell whether `lower_layers` knows layers of `model`."""
    modules = list(model.modules())
    coded = any(isinstance(module, CodedLayer) for module in modules)
    return coded and not any(isinstance(module, CastModel) for module in modules)


@torch.no_grad()
def lower_layers(
    model: nn.Module, example: Any, *, verify: bool = True
) -> tuple[nn.Module, list[str]]:
    """Return a copy of `model` on kernels, and how layers differ that stay as they were.

    Linear layers that the example's prediction calls run on compiled kernels, where the machine has
    them; those whose weights alone are codes only where they are given at most MOST_ROWS rows. Other
    weights of codes are real numbers from then on. `verify` compares each kernel with its layer on
    what the prediction gives it.
    """
    lowered = copy_model(model)
    kernels = {} if missing() else _kernels(lowered)
    called: dict[nn.Module, str | None] = {}
    hooks = [
        layer.register_forward_hook(_compare(kernel, called, verify=verify), with_kwargs=True)
        for layer, kernel in kernels.items()
    ]
    inputs = example if isinstance(example, tuple) else (example,)
    try:
        with evaluating(lowered):
            lowered(*inputs)
    except Exception as error:  # whatever a network raises for inputs that are not its own
        place = failing_module(lowered, error)
        raise CompressionError(f"the network cannot take the example: {place}: {error}") from error
    finally:
        for hook in hooks:
            hook.remove()
    wrong = []
    for name, layer in dict(lowered.named_modules()).items():
        if called.get(layer, "not called") is None:
            new: nn.Module | None = kernels[layer]
        else:
            wrong += [f"{name} {called[layer]}"] if layer in called else []
            new = _dequantized(layer)
        if new is not None:
            replace_everywhere(lowered, layer, new)
            lowered = new if layer is lowered else lowered
    return lowered.eval(), wrong


def _kernels(model: nn.Module) -> dict[nn.Module, nn.Module]:
    found = {layer: native_linear(layer) for layer in model.modules()}
    return {layer: kernel for layer, kernel in found.items() if kernel is not None}


def _compare(
    kernel: nn.Module, called: dict[nn.Module, str | None], *, verify: bool
) -> Callable[..., None]:
    """Return a hook that notes, for a layer that was called, how its kernel differs from it."""

    def compare(layer: Any, args: tuple[Any, ...], named: dict[str, Any], outputs: Tensor) -> None:
        inputs = args[0] if args else named["input"]
        if isinstance(layer, WeightQuantizedLayer) and _rows(inputs) > MOST_ROWS:
            return
        if called.setdefault(layer, None) is None and verify and not inputs.is_nested:
            called[layer] = _difference(layer, inputs, outputs, kernel)

    return compare


def _rows(inputs: Tensor) -> int:
    if inputs.is_nested:
        return sum(_rows(part) for part in inputs.unbind())
    return inputs.numel() // inputs.shape[-1]


def _difference(layer: Any, inputs: Tensor, outputs: Tensor, kernel: nn.Module) -> str | None:
    """Say how a kernel differs from its layer, None where it does as little as it may."""
    if inputs.dtype != torch.float32:
        return f"is called with {inputs.dtype}"
    found = kernel(inputs)
    if isinstance(layer, DynamicQuantizedLinear):
        same = torch.equal(found.nan_to_num(), outputs.nan_to_num())
        return None if same or not inputs.isfinite().all() else "gives other numbers on its kernel"
    bias = None if layer.bias is None else layer.bias.abs()
    allowed = nn.functional.linear(inputs.abs(), layer.weight.abs(), bias)
    allowed = allowed * (_ROUNDING * layer.in_features**0.5)
    beyond = ((found - outputs).abs() > allowed) & outputs.isfinite()
    return "gives other numbers on its kernel" if beyond.any() else None


def _dequantized(layer: nn.Module) -> nn.Module | None:
    """Return the plain layer of the numbers that codes of a weight stand for."""
    if isinstance(layer, WeightQuantizedLayer | WeightQuantizedRecurrent):
        return cast(nn.Module, in_float(layer, lambda coded: coded.weight))
    return None
