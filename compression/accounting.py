"""What a network holds and does: parameters, nonzeros, multiply-accumulates, bytes in memory."""

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from compression.layers import parameter_tensors
from compression.modes import evaluating

_INT_MM = torch.ops.aten._int_mm  # torch's counter does not know the integer product


def _int_mm_flops(left: torch.Size, right: torch.Size, **_: object) -> int:
    return 2 * left[0] * left[1] * right[1]


def count_parameters(model: nn.Module) -> int:
    """Count weights and biases, real or integer codes, tied ones once."""
    return sum(tensor.numel() for _, tensor in parameter_tensors(model))


def count_nonzeros(model: nn.Module) -> int:
    """Count the parameters that are not 0."""
    return sum(int(torch.count_nonzero(tensor)) for _, tensor in parameter_tensors(model))


@torch.no_grad()
def count_macs(model: nn.Module, example_input: Tensor) -> int:
    """Count the multiply-accumulates of one forward pass of `example_input`, by torch's counter.

    torch counts convolutions and matrix products as two operations a multiply-accumulate. The
    model's modes are restored, its buffers are untouched. Zeros count: they are multiplied.
    """
    flops = FlopCounterMode(display=False, custom_mapping={_INT_MM: _int_mm_flops})
    with evaluating(model), flops as counter:
        model(example_input)
    return counter.get_total_flops() // 2


def dense_bytes(model: nn.Module) -> int:
    """Return the bytes of the state dict's tensors, buffers included, tied tensors once."""
    tensors = {
        (t.data_ptr() or id(t), tuple(t.shape), t.dtype): t for t in model.state_dict().values()
    }
    return sum(t.numel() * t.element_size() for t in tensors.values())
