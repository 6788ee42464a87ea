"""What a network holds and does: parameters, nonzeros, multiply-accumulates, bytes in memory."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode

from compression.errors import CompressionError, UnsupportedTypeError
from compression.layers import PLAIN, check_module, failing_module, parameter_tensors, same_memory
from compression.modes import ExecutorModel, evaluating

_aten = torch.ops.aten
_PRODUCTS = {
    *("mm", "addmm", "bmm", "baddbmm", "addbmm", "matmul", "mv", "addmv", "dot", "vdot", "addr"),
    *("conv", "conv1d", "conv2d", "conv3d", "convolution", "linear", "bilinear", "trilinear"),
    *("attention", "transformer", "lstm", "gru", "rnn", "einsum", "outer", "ger", "linalg"),
}
"""Parts of names of torch's operators that multiply and accumulate."""


def count_parameters(model: nn.Module) -> int:
    """Count weights and biases, real or integer codes, tied ones once.

    UnsupportedTypeError for a network in the form of an executor whose weights torch does not list.
    """
    return sum(tensor.numel() for _, tensor in _parameters(model))


def count_nonzeros(model: nn.Module) -> int:
    """Count the parameters that are not 0, as count_parameters counts them.

    UnsupportedTypeError for a tensor without data.
    """
    nonzeros = 0
    for name, tensor in _parameters(model):
        if tensor.is_meta:
            raise UnsupportedTypeError(f"{name}: expected a tensor with data, found a meta tensor")
        plain = type(tensor) in PLAIN and tensor.layout == torch.strided
        nonzeros += int(torch.count_nonzero(tensor if plain else tensor.to_dense()))
    return nonzeros


@torch.no_grad()
def count_macs(model: nn.Module, example_input: Any, *others: Any, **named: Any) -> int:
    """Count the multiply-accumulates of one forward pass of the given inputs in eval mode.

    Convolutions, products of matrices and vectors, attention, recurrent and bilinear layers count, by
    the shapes that torch's kernels are called with. Products element by element do not, those of
    norms and activations among them. Zeros count: they are multiplied. The model's modes and buffers
    are restored. Raises UnsupportedTypeError with the names of operators whose products torch does
    not tell, and CompressionError for inputs that the network cannot take.

    >>> count_macs(nn.Conv2d(3, 8, 3), torch.randn(1, 3, 6, 6))  # 8 x 3 x 9 at 16 positions
    3456
    """
    _parameters(model)
    counter = _Counter()
    try:
        with evaluating(model), _restore_buffers(model), _unfuse_attention(), counter:
            model(example_input, *others, **named)
    except (CompressionError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # whatever the user's code does with the example
        raise CompressionError(
            f"the network cannot take the example: {failing_module(model, error)}: {error}"
        ) from error
    if counter.unknown:
        raise UnsupportedTypeError(
            "multiply-accumulates cannot be counted for " + ", ".join(sorted(counter.unknown))
        )
    return counter.macs


def dense_bytes(model: nn.Module) -> int:
    """Return the bytes of the state dict's tensors, buffers included, tied tensors once.

    UnsupportedTypeError for a tensor that is not dense.
    """
    check_module(model)
    tensors: dict[object, Tensor] = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        if not isinstance(tensor, Tensor):
            continue  # a module's extra state
        if tensor.layout != torch.strided or type(tensor) not in PLAIN:
            raise UnsupportedTypeError(f"{name}: expected a dense tensor, found {type(tensor)}")
        tensors[same_memory(tensor)] = tensor
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


def _parameters(model: nn.Module) -> list[tuple[str, Tensor]]:
    check_module(model)
    for name, tensor in model.named_parameters():
        if isinstance(tensor, nn.UninitializedParameter):
            raise UnsupportedTypeError(
                f"{name}: a lazy layer's has no shape yet; call the network once"
            )
    for name, module in model.named_modules():
        if isinstance(module, ExecutorModel) and not any(True for _ in parameter_tensors(module)):
            raise UnsupportedTypeError(
                f"{name or 'the model'}: {type(module).__name__} holds its weights outside of torch; "
                "count the network that it was made of"
            )
    return list(parameter_tensors(model))


class _Counter(TorchDispatchMode):
    """Adds up the products of the operators that are called, and notes those that it cannot count."""

    def __init__(self) -> None:
        super().__init__()
        from torch.utils.flop_counter import flop_registry  # here, since it imports Triton

        self.flops: Any = flop_registry
        self.macs, self.unknown = 0, set[str]()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        kind = getattr(func, "_overloadpacket", func)
        if kind not in _MACS and kind not in self.flops and hasattr(func, "decompose"):
            with self:  # what it is made of may be known
                outputs = func.decompose(*args, **kwargs)
            if outputs is not NotImplemented:
                return outputs
        outputs = func(*args, **kwargs)
        if kind in _MACS:
            self.macs += _MACS[kind](outputs, *args, **kwargs)
        elif kind in self.flops:
            self.macs += self.flops[kind](*args, **kwargs, out_val=outputs) // 2
        elif _may_multiply(func):
            self.unknown.add(str(func))
        return outputs


def _may_multiply(func: Any) -> bool:
    space, _, name = str(func).partition(".")
    name = name.partition(".")[0]
    if name.startswith(("_thnn_fused", "linalg_vector_norm")):  # a cell's products come before
        return False
    known = space in ("aten", "prim", "prims", "torchvision", "profiler")
    return not known or name.startswith("_fft") or not _PRODUCTS.isdisjoint(name.split("_"))


def _rows_times_matrices(rows: Tensor, matrices: list[Tensor]) -> int:
    return rows[..., 0].numel() * sum(matrix.numel() for matrix in matrices if matrix.ndim > 1)


_MACS: dict[Any, Callable[..., int]] = {
    _aten._int_mm: lambda _, a, b, **__: a.numel() * b.shape[1],
    _aten.mv: lambda _, a, *__: a.numel(),
    _aten.addmv: lambda _, __, a, *___, **____: a.numel(),
    _aten.dot: lambda _, a, *__: a.numel(),
    _aten.vdot: lambda _, a, *__: a.numel(),
    _aten.addbmm: lambda _, __, a, b, **___: a.numel() * b.shape[2],
    _aten.addr: lambda out, *_, **__: out.numel(),
    _aten._euclidean_dist: lambda out, a, *_: out.numel() * a.shape[-1],
    _aten._cdist_forward: lambda out, a, *_: out.numel() * a.shape[-1],
    _aten._trilinear: lambda _, a, b, *__, **___: len(a) * b.numel(),
    _aten.mkldnn_rnn_layer: lambda _, x, *w, **__: _rows_times_matrices(x, list(w[:2])),
    _aten._cudnn_rnn: lambda _, x, weights, *__, **___: _rows_times_matrices(x, weights),
    _aten.miopen_rnn: lambda _, x, weights, *__, **___: _rows_times_matrices(x, weights),
}
"""Multiply-accumulates by (outputs, *inputs) of operators that torch's own counter does not know."""


@contextmanager
def _unfuse_attention() -> Iterator[None]:
    """Have attention call the products that it is made of."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


@contextmanager
def _restore_buffers(model: nn.Module) -> Iterator[None]:
    held = [(m, name, b, b.clone()) for m in model.modules() for name, b in _buffers(m)]
    try:
        yield
    finally:
        for module, name, buffer, values in held:
            if not torch.equal(buffer, values):
                buffer.copy_(values)
            module._buffers[name] = buffer


def _buffers(module: nn.Module) -> list[tuple[str, Tensor]]:
    return list(module.named_buffers(recurse=False))
