"""Tensors in tuples, lists, mappings and dataclasses, as networks take and return them."""

import copy
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor

from compression.errors import UnsupportedTypeError

Leaf = TypeVar("Leaf")
_PLAIN = (str, bytes, bool, int, float, complex, type(None), torch.Size, torch.dtype, torch.device)


def named_leaves(value: Any, kind: type[Leaf], path: str = "") -> Iterator[tuple[str, Leaf]]:
    """Yield what is of `kind` in a value, and its path: "out", "0", "boxes.1"; "" for itself.

    >>> [path for path, _ in named_leaves({"out": torch.ones(1), "aux": [torch.ones(2)]}, Tensor)]
    ['out', 'aux.0']
    """
    if isinstance(value, kind):
        yield path, value
        return
    for key, item in _items(value):
        yield from named_leaves(item, kind, f"{path}.{key}".removeprefix("."))


def tensors_in(value: Any) -> Iterator[Tensor]:
    """Yield the tensors in a value."""
    return (tensor for _, tensor in named_leaves(value, Tensor))


def map_tensors(value: Any, function: Callable[[Tensor], Any], role: str) -> Any:
    """Return a copy of a value whose tensors went through `function`.

    UnsupportedTypeError, which calls the value by its `role`, for what is no collection and no plain
    number or text.
    """
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, _PLAIN):
        return value
    items = [(key, map_tensors(item, function, role)) for key, item in _items(value)]
    made = [item for _, item in items]
    if isinstance(value, list):
        return made
    if isinstance(value, tuple):
        # A named tuple; torch.return_types take one sequence as tuples do.
        return value._make(made) if hasattr(value, "_make") else type(value)(made)  # type: ignore[attr-defined]
    if not isinstance(value, Mapping) and not _is_dataclass(value):
        raise UnsupportedTypeError(
            f"{role}: expected tensors, numbers, tuples, lists, dicts or dataclasses of them, found "
            f"{type(value).__name__}"
        )
    same: Any = copy.copy(value)
    for key, item in items:
        if _is_dataclass(value):
            object.__setattr__(same, key, item)
        if isinstance(value, Mapping) and key in value:
            same[key] = item
    return same


def structure_of(value: Any) -> Any:
    """Return what two values have in common whose tensors stand in the same places.

    >>> structure_of((torch.ones(1), 3)) == structure_of((torch.zeros(2), 3))
    True
    """
    if isinstance(value, Tensor):
        return Tensor
    if isinstance(value, tuple | list | Mapping) or _is_dataclass(value):
        return type(value), [(key, structure_of(item)) for key, item in _items(value)]
    return value


def _items(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield the keys, names or places in a collection, each with its item."""
    if _is_dataclass(value):
        for field in dataclasses.fields(value):
            yield field.name, getattr(value, field.name)
    elif isinstance(value, Mapping):
        yield from value.items()
    elif isinstance(value, tuple | list):
        names = getattr(value, "_fields", range(len(value)))
        yield from zip(names, value, strict=True)


def _is_dataclass(value: Any) -> bool:
    return dataclasses.is_dataclass(value) and not isinstance(value, type)
