"""Networks whose layers alone hold codes: each layer on a kernel, or dequantized once."""

import copy
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from compression.errors import CompressionError
from compression.integer.native import (
    missing,
    native_embedding,
    native_linear,
    native_recurrent,
)
from compression.layers import copy_model, failing_module, replace_everywhere
from compression.modes import evaluating
from compression.nested import tensors_in
from compression.quantization import (
    CastModel,
    WeightQuantizedEmbedding,
    WeightQuantizedLayer,
    WeightQuantizedRecurrent,
)
from compression.quantization.coded import in_float
from compression.quantization.replacement import CodedLayer

MOST_ROWS = 64
"""Rows of an input up to which a kernel that unpacks weights is as fast as torch's on real ones."""
_ROUNDING = 16 * 2.0**-24
"""Of the sum of a dot product's magnitudes, per root of its terms: what two orders of it differ by."""
_FARTHER = 16
"""Of recurrent layers, whose errors grow from step to step: how many times as far from float64 as
torch's own layer is. What is right is twice as far, what is wrong a thousand times."""


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

    Layers that the example's prediction calls run on compiled kernels, where the machine has them:
    embeddings; linear and recurrent ones whose activations are quantized; and those whose weights alone
    are codes, where they are given at most MOST_ROWS rows, or sequences, at once. Other weights of
    codes, but for those of embeddings, are real numbers from then on. `verify` compares each kernel
    with its layer on what the prediction gives it.
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
    makers = native_linear, native_recurrent, native_embedding
    found = ((layer, make(layer)) for layer in model.modules() for make in makers)
    return {layer: kernel for layer, kernel in found if kernel is not None}


def _compare(
    kernel: nn.Module, called: dict[nn.Module, str | None], *, verify: bool
) -> Callable[..., None]:
    """Return a hook that notes, for a layer that was called, how its kernel differs from it."""

    def compare(layer: Any, args: tuple[Any, ...], named: dict[str, Any], outputs: Any) -> None:
        inputs = args[0] if args else named["input"]
        real_rows = isinstance(layer, WeightQuantizedLayer | WeightQuantizedRecurrent)
        if real_rows and _rows_at_once(layer, inputs) > MOST_ROWS:
            return
        inputs = inputs.data if isinstance(inputs, PackedSequence) else inputs
        if called.setdefault(layer, None) is not None or not verify or inputs.is_nested:
            return
        if inputs.dtype != torch.float32 and not isinstance(layer, WeightQuantizedEmbedding):
            called[layer] = f"is called with {inputs.dtype}"
        elif not _is_same(layer, (args, named), inputs, outputs, kernel(*args, **named)):
            called[layer] = "gives other numbers on its kernel"

    return compare


def _rows(inputs: Tensor) -> int:
    if inputs.is_nested:
        return sum(_rows(part) for part in inputs.unbind())
    return inputs.numel() // inputs.shape[-1]


def _rows_at_once(layer: Any, inputs: Any) -> int:
    """Return how many rows are multiplied at once: of a recurrent layer, those of a step."""
    if not isinstance(layer, WeightQuantizedRecurrent):
        return _rows(inputs)
    if isinstance(inputs, PackedSequence):
        return int(inputs.batch_sizes[0])
    return int(inputs.shape[0 if layer.batch_first else 1]) if inputs.ndim == 3 else 1


def _is_same(layer: Any, call: tuple[Any, Any], inputs: Tensor, outputs: Any, found: Any) -> bool:
    """Tell whether a kernel differs from its layer by no more than it may."""
    if isinstance(layer, WeightQuantizedRecurrent):
        return recurrent_is_near(layer, call, outputs, found)
    if not isinstance(layer, WeightQuantizedLayer):  # to the bit
        pairs = zip(tensors_in(found), tensors_in(outputs), strict=True)
        same = all(torch.equal(a.nan_to_num(), b.nan_to_num()) for a, b in pairs)
        return same or not inputs.isfinite().all()
    bias = None if layer.bias is None else layer.bias.abs()
    allowed = nn.functional.linear(inputs.abs(), layer.weight.abs(), bias)
    allowed = allowed * (_ROUNDING * layer.in_features**0.5)
    beyond = ((found - outputs).abs() > allowed) & outputs.isfinite()
    return not beyond.any()


def recurrent_is_near(
    layer: Any, call: tuple[Any, Any], outputs: Any, found: Any, *, farther: float = _FARTHER
) -> bool:
    """Tell whether what a kernel of real rows `found` is about as near to float64 as `outputs` are.

    `call` is what `layer` was called with: arguments and named ones.
    """
    exact = copy.deepcopy(in_float(layer, lambda coded: coded.weight)).double()
    args, named = _doubled(call)
    terms = max(matrix.codes.shape[1] for matrix in layer.matrices.values())
    triples = zip(*map(tensors_in, (exact(*args, **named), outputs, found)), strict=True)
    for right, wanted, one in triples:
        if wanted.is_floating_point() and wanted.isfinite().all():
            size = right.norm() + right.numel() ** 0.5  # of what gates let out: 1
            allowed = farther * (wanted - right).norm() + _ROUNDING * terms**0.5 * size
            if not (one - right).norm() <= allowed:
                return False
    return True


def _doubled(value: Any) -> Any:
    """Return a call's real tensors, packed or not, in float64."""
    if isinstance(value, Tensor | PackedSequence):
        return value.to(torch.float64)
    if isinstance(value, dict):
        return {name: _doubled(part) for name, part in value.items()}
    return tuple(map(_doubled, value)) if isinstance(value, tuple | list) else value


def _dequantized(layer: nn.Module) -> nn.Module | None:
    """Return the plain layer of the numbers that codes of a weight stand for."""
    if isinstance(layer, WeightQuantizedLayer | WeightQuantizedRecurrent):
        return cast(nn.Module, in_float(layer, lambda coded: coded.weight))
    return None
