"""Half precision: the network in float16 or bfloat16, inputs and outputs in float32."""

import re
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from compression.errors import CompressionError, UnsupportedTypeError
from compression.layers import check_model, copy_model, failing_module, record_left_out
from compression.modes import ExecutorModel
from compression.nested import map_tensors, tensors_in
from compression.quantization.replacement import CodedLayer

DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16}
_ANOTHER_DTYPE = re.compile("same dtype|same type|scalar type|dtype|should be the same", re.I)


class CastModel(nn.Module):
    """Runs `network` in its own dtype on inputs cast to it, and returns float32.

    On a CPU float16 weights are widened at each call: torch's float16 convolutions there are some
    ten times slower than float32.
    """

    def __init__(self, network: nn.Module, dtype: torch.dtype) -> None:
        """Take over `network`, whose floating tensors are of `dtype`."""
        super().__init__()
        self.network = network
        self.dtype = dtype

    def forward(self, *inputs: Any, **named: Any) -> Any:
        """Return the network's outputs, their floating tensors in float32.

        Tensors may stand in tuples, lists, dicts and dataclasses; integers stay what they are. Raises
        CompressionError where the forward mixes dtypes or torch has no kernel, and for outputs of
        another type.
        """
        first = next(tensors_in((inputs, named)), None)
        place = first.device.type if first is not None else "cpu"
        widened = self.dtype == torch.float16 and place == "cpu"
        dtype = torch.float32 if widened else self.dtype
        inputs, named = _in_dtype((inputs, named), dtype, "inputs")
        try:
            if widened:
                wide = _wide_tensors(self.network)
                outputs = functional_call(self.network, wide, inputs, named, tie_weights=False)
            else:
                outputs = self.network(*inputs, **named)
        except NotImplementedError as error:
            raise CompressionError(
                f"{failing_module(self.network, error)}: torch computes it in no {dtype} on this "
                f"device ({error}); keep the network in float32, or try the other half precision"
            ) from error
        except RuntimeError as error:
            if isinstance(error, torch.OutOfMemoryError) or not _ANOTHER_DTYPE.search(str(error)):
                raise
            raise CompressionError(
                f"{failing_module(self.network, error)}: the forward mixes {dtype} with another "
                f"dtype ({error}); make its tensors in the dtype of its inputs, by x.new_zeros or "
                "dtype=x.dtype"
            ) from error
        return _in_dtype(outputs, torch.float32, "outputs")


def cast(model: nn.Module, dtype: torch.dtype) -> CastModel:
    """Return a copy of `model` in float16 or bfloat16, whose inputs and outputs stay float32.

    All its floating tensors are cast, buffers that are not saved among them. CompressionError where a
    weight is beyond the dtype's largest number; UnsupportedTypeError for complex tensors, and for a
    plain tensor that an attribute holds, since a network does not cast it.

    >>> half = cast(nn.Linear(4, 2), torch.bfloat16)
    >>> half.network.weight.dtype, half(torch.zeros(3, 4)).dtype
    (torch.bfloat16, torch.float32)
    """
    if dtype not in DTYPES.values():
        raise CompressionError(f"dtype must be torch.float16 or torch.bfloat16, found {dtype}")
    check_model(model)
    _check_castable(model)
    network = copy_model(model).eval()
    largest = torch.finfo(dtype).max
    for name, tensor in [*network.named_parameters(), *network.named_buffers()]:
        if tensor.is_complex():
            raise UnsupportedTypeError(f"{name}: expected real numbers, found {tensor.dtype}")
        if not tensor.is_floating_point():
            continue
        finite = tensor[torch.isfinite(tensor)].abs()
        if finite.numel() and finite.max() > largest:
            raise CompressionError(
                f"{name}: {finite.max().item():.4g} is beyond {dtype}'s largest number "
                f"{largest:.4g}; cast to torch.bfloat16"
            )
    record_left_out(network, {})
    return CastModel(network.to(dtype), dtype)


@torch.no_grad()
def round_vectors(model: nn.Module) -> nn.Module:
    """Return a copy whose biases and batch norms hold bfloat16 numbers, in the dtype they had.

    These are the floating tensors of fewer than two dimensions. The arithmetic stays what it was, and
    an entropy-coded file stores them in half their bytes. Raises what check_model raises.

    >>> layer = round_vectors(nn.BatchNorm1d(2))
    >>> layer.weight.dtype, bool((layer.weight == layer.weight.bfloat16()).all())
    (torch.float32, True)
    """
    check_model(model)
    rounded = copy_model(model)
    for tensor in rounded.state_dict().values():
        if isinstance(tensor, Tensor) and tensor.ndim < 2 and tensor.is_floating_point():
            # to nearest, and the largest numbers down: they would be infinite
            limit = 65280.0 if tensor.dtype == torch.float16 else torch.finfo(torch.bfloat16).max
            narrow = tensor.clamp(-limit, limit).to(torch.bfloat16)
            tensor.copy_(torch.where(tensor.isinf(), tensor, narrow.to(tensor.dtype)))
    return rounded


def _check_castable(model: nn.Module) -> None:
    for prefix, module in model.named_modules():
        if isinstance(module, CastModel | ExecutorModel):
            raise UnsupportedTypeError(
                f"{prefix or 'the model'}: expected a network of real numbers, found "
                f"{type(module).__name__}; cast the network that it was made of"
            )
        for name, value in vars(module).items() if not isinstance(module, CodedLayer) else ():
            if name.startswith("_flat_weight") or name in ("_parameters", "_buffers", "_modules"):
                continue
            if any(tensor.is_floating_point() for tensor in tensors_in(value)):
                raise UnsupportedTypeError(
                    f"{prefix}.{name}".removeprefix(".") + ": expected a buffer, found a plain "
                    "attribute that holds a floating tensor, which a network does not cast; use "
                    "register_buffer(..., persistent=False)"
                )


def _wide_tensors(network: nn.Module) -> dict[str, Tensor]:
    """Return all tensors of `network` by name, floating ones in float32."""
    wide: dict[int, Tensor] = {}  # tied ones stay tied
    # A module that has two names is named once: functional_call would not give it its tensors back.
    named = [
        (f"{prefix}.{name}".removeprefix("."), tensor)
        for prefix, module in network.named_modules()
        for name, tensor in [*module._parameters.items(), *module._buffers.items()]
        if tensor is not None
    ]
    for _, tensor in named:
        if id(tensor) not in wide:
            wide[id(tensor)] = tensor.float() if tensor.is_floating_point() else tensor
    return {name: wide[id(tensor)] for name, tensor in named}


def _in_dtype(value: Any, dtype: torch.dtype, role: str) -> Any:
    """Return `value` with its floating tensors in `dtype`."""
    return map_tensors(value, lambda t: t.to(dtype) if t.is_floating_point() else t, role)
