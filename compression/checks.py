"""What is asked of arguments in more than one room."""

from typing import Any

import torch
from torch import Tensor

from compression.errors import UnsupportedTypeError


def is_whole(value: object) -> bool:
    """Tell whether `value` is an int; True and False are none."""
    return isinstance(value, int) and not isinstance(value, bool)


def check_dense(x: Any, name: str) -> None:
    """Refuse what is no dense tensor with data; `name` is what the message calls it."""
    if not isinstance(x, Tensor):
        raise UnsupportedTypeError(f"{name}: expected a tensor, found {type(x).__name__}")
    if x.is_meta or x.layout != torch.strided or x.is_quantized:
        found = "a meta tensor" if x.is_meta else "a quantized one" if x.is_quantized else x.layout
        raise UnsupportedTypeError(f"{name}: expected a dense tensor with data, found {found}")
