"""What is refused before a step is taken, and how an error of the user's network is named."""

import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

from compression.errors import CompressionError, UnsupportedTypeError

IGNORED = -100
"""The label that counts nowhere: the default of torch's cross-entropy."""


def training_device(model: nn.Module) -> torch.device:
    """Return the one device of `model`; CompressionError where nothing of it can be trained."""
    name, parameters = type(model).__name__, dict(model.named_parameters())
    if torch.is_inference_mode_enabled():
        raise CompressionError(
            f"{name} cannot be trained within torch.inference_mode, which keeps no gradients: leave it"
        )
    if not parameters:
        raise CompressionError(f"{name} has no parameters: there is nothing to train")
    for key, parameter in parameters.items():
        if isinstance(parameter, UninitializedParameter) or parameter.is_meta:
            raise UnsupportedTypeError(
                f"{key}: expected a parameter with values, found a lazy or meta one; run the network "
                "on one batch, or load its weights, first"
            )
    if not any(p.requires_grad for p in parameters.values()):
        raise CompressionError(
            f"all {len(parameters)} parameters of {name} are frozen: set requires_grad on those that "
            "are to be trained"
        )
    places: dict[torch.device, str] = {}
    for key, tensor in [*parameters.items(), *model.named_buffers()]:
        places.setdefault(tensor.device, key)
    if len(places) > 1:
        found = ", ".join(f"{key} on {device}" for device, key in places.items())
        raise CompressionError(
            f"{name} lies on several devices ({found}): move it to one, by .to()"
        )
    return next(iter(places))


def check_labels(labels: Any, logits: torch.Size) -> None:
    """Refuse class labels that have no logit; `logits` is the shape (N, classes, ...) of a batch.

    Labels that are numbers stand for probabilities, and are left to the loss, but for NaN.
    """
    if not isinstance(labels, Tensor):
        raise UnsupportedTypeError(
            f"expected one tensor of labels, found {describe_any(labels)}; pass a loss of your own for "
            "others"
        )
    if labels.is_floating_point() and bool(torch.isnan(labels).any()):
        number = int(torch.isnan(labels).nonzero()[0, 0])
        raise CompressionError(
            f"labels must be numbers, found NaN, the first of image {number}; leave such images out"
        )
    if labels.is_floating_point() or labels.is_complex() or not labels.numel() or len(logits) < 2:
        return
    # Read as a list: one look for both, and for none of it a step waits.
    counted = torch.where(labels == IGNORED, torch.zeros_like(labels), labels)
    lowest, highest = torch.stack(torch.aminmax(counted)).cpu().tolist()
    if lowest < 0 or highest >= logits[1]:
        raise CompressionError(
            f"labels must lie in 0..{logits[1] - 1}, one for each of the network's {logits[1]} "
            f"outputs, found {int(lowest)} to {int(highest)}"
        )


def check_logits(model: object, found: Any) -> Tensor:
    """Return what a network gave; UnsupportedTypeError unless it is a tensor of floats."""
    name = type(model).__name__ if isinstance(model, nn.Module) else "the network"
    if isinstance(found, Tensor) and found.is_floating_point():
        return found
    kind = f"a {type(found).__name__}"
    if isinstance(found, Tensor):
        kind = f"a tensor of {str(found.dtype)[6:]}"
    elif isinstance(found, dict):
        kind += f" with {', '.join(map(repr, list(found)[:5])) or 'no keys'}"
    elif isinstance(found, tuple | list):
        kind += f" of {len(found)}"
    raise UnsupportedTypeError(
        f"{name}: expected one tensor of floating-point logits, found {kind}; wrap it in a module "
        "that returns its logits alone"
    )


def describe(tensor: Tensor) -> str:
    """Return a tensor's shape and dtype for a message."""
    return f"{tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"


def describe_any(value: Any) -> str:
    """Return a value's kind for a message, and the shapes and dtypes of what it holds."""
    if isinstance(value, Tensor):
        return describe(value)
    if isinstance(value, Mapping):
        return f"a {type(value).__name__} with {', '.join(map(repr, list(value)[:5])) or 'no keys'}"
    if isinstance(value, tuple | list) and 0 < len(value) <= 5:
        return f"a {type(value).__name__} of {', '.join(map(describe_any, value))}"
    if isinstance(value, np.ndarray):
        return f"{value.shape} {value.dtype}"
    return "None" if value is None else type(value).__name__


@contextmanager
def named_errors(model: nn.Module, what: str) -> Iterator[None]:
    """Turn any error of the network's or loss's own code into a CompressionError that says where."""
    try:
        yield
    except CompressionError:
        raise
    except Exception as error:
        kind = type(error).__name__
        raise CompressionError(f"{_place(model, error)}: {what}: {kind}: {error}") from error


def _place(model: nn.Module, error: Exception) -> str:
    """Return the innermost module that the error came through, and the line of its forward."""
    names = {id(module): name for name, module in model.named_modules()}
    place, line = type(model).__name__, ""
    for frame, number in traceback.walk_tb(error.__traceback__):
        inside, file = frame.f_locals.get("self"), Path(frame.f_code.co_filename)
        if id(inside) not in names:
            continue
        if inside is not model:
            place = f"{names[id(inside)]} ({type(inside).__name__})"
        if frame.f_code.co_name == "forward" and "torch" not in file.parts:
            line = f", line {number} of {file.name}"
    return place + line
