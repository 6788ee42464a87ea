"""Tensors that claim to be on a GPU and compute on the CPU: mixed devices fail as on a GPU."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

from compression import layers

CUDA = torch.device("cuda", 0)


WAITS: list[str] = []
"""What made the host wait for the pretended GPU: the operators that read its numbers."""
READING = {
    "_local_scalar_dense",
    "item",
    "is_nonzero",
    "nonzero",
    "masked_select",
    "equal",
    "unique",
}


class OnCuda(Tensor):
    """Wraps a CPU tensor."""

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> "OnCuda":
        made = torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls, inner.shape, strides=inner.stride(), storage_offset=inner.storage_offset(),
            dtype=inner.dtype, layout=inner.layout, device=CUDA, requires_grad=inner.requires_grad,
        )  # fmt: skip
        made.inner = inner
        return made  # type: ignore[no-any-return]

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        return dispatch(func, args, kwargs or {})


class Pretend(TorchDispatchMode):
    """Puts what is asked for on a GPU onto the pretended one."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return dispatch(func, args, kwargs or {})


def dispatch(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Run an operator on the CPU; its result is on the pretended GPU where its inputs are."""
    if func is torch.ops.aten._has_compatible_shallow_copy_type.default:
        return False  # whether a tensor may become another in place
    flat = tree_flatten((args, kwargs))[0]
    tensors = [x for x in flat if isinstance(x, Tensor)]
    wrapped = [x for x in tensors if isinstance(x, OnCuda)]
    asked = kwargs.get("device")
    name = func.overloadpacket.__name__
    if wrapped and (name in READING or (asked is not None and torch.device(asked).type == "cpu")):
        WAITS.append(name)
    if wrapped and asked is None and not _copies(func):
        _refuse_strangers(func, tensors)
    on_cuda = bool(wrapped) if asked is None else torch.device(asked).type == "cuda"
    if _copies(func):
        on_cuda = isinstance(args[0], OnCuda)
    if asked is not None:
        kwargs = {**kwargs, "device": torch.device("cpu")}
    plain_args, plain_kwargs = tree_map(_inner, (args, kwargs))
    result = func(*plain_args, **plain_kwargs)
    given = {id(x.inner): x for x in wrapped}
    return tree_map(lambda x: _outer(x, given, on_cuda), result)


def _refuse_strangers(func: Any, tensors: list[Tensor]) -> None:
    strangers = [x for x in tensors if not isinstance(x, OnCuda) and x.ndim > 0]
    if strangers:
        raise RuntimeError(
            f"{func}: expected all tensors on one device, found cuda and cpu, of shapes "
            f"{[tuple(x.shape) for x in strangers]}"
        )


def _copies(func: Any) -> bool:
    return func.overloadpacket is torch.ops.aten.copy_


def _inner(x: Any) -> Any:
    return x.inner if isinstance(x, OnCuda) else x


def _outer(x: Any, given: dict[int, OnCuda], on_cuda: bool) -> Any:
    if not isinstance(x, Tensor) or not on_cuda:
        return x
    return given[id(x)] if id(x) in given else OnCuda(x)


# Answers to what torch would ask the card.
ANSWERS = {
    "_lazy_init": None,
    "synchronize": None,
    "reset_peak_memory_stats": None,
    "memory_allocated": 0,
    "max_memory_allocated": 0,
}


@contextmanager
def pretend_cuda() -> Iterator[torch.device]:
    """Let `.to(CUDA)` and factories on it give tensors of the pretended GPU."""
    torch._C._ensureCUDADeviceGuardSet()  # without a driver: a guard that does nothing
    overwrites = torch.__future__.get_overwrite_module_params_on_conversion()
    torch.__future__.set_overwrite_module_params_on_conversion(True)  # a parameter changes its type
    answers: dict[str, Any] = {n: lambda *_, value=v: value for n, v in ANSWERS.items()}
    try:
        with (
            mock.patch.multiple(torch.cuda, **answers),
            mock.patch.object(layers, "PLAIN", (*layers.PLAIN, OnCuda)),
            torch.backends.cudnn.flags(enabled=False),  # its kernels are the card's alone
            Pretend(),
        ):
            yield CUDA
    finally:
        torch.__future__.set_overwrite_module_params_on_conversion(overwrites)
