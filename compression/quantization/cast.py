"""Half precision: the network in float16 or bfloat16, inputs and outputs in float32."""

import torch
from torch import Tensor, nn
from torch.func import functional_call

from compression.errors import CompressionError
from compression.layers import check_model, copy_model

DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16}


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

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the network's outputs in float32."""
        if self.dtype == torch.float16 and inputs.device.type == "cpu":
            wide = {
                name: tensor.float() if tensor.is_floating_point() else tensor
                for name, tensor in self.network.state_dict().items()
            }
            widened: Tensor = functional_call(self.network, wide, (inputs.float(),))
            return widened
        outputs: Tensor = self.network(inputs.to(self.dtype))
        return outputs.float()


def cast(model: nn.Module, dtype: torch.dtype) -> CastModel:
    """Return a copy of `model` in float16 or bfloat16; CompressionError where a weight overflows."""
    if dtype not in DTYPES.values():
        raise CompressionError(f"dtype must be torch.float16 or torch.bfloat16, found {dtype}")
    check_model(model)
    network = copy_model(model).eval()
    largest = torch.finfo(dtype).max
    for name, tensor in network.state_dict().items():
        if tensor.is_floating_point() and tensor.numel() and tensor.abs().max() > largest:
            raise CompressionError(
                f"{name}: {tensor.abs().max().item():.4g} is beyond {dtype}'s largest number "
                f"{largest:.4g}; cast to torch.bfloat16"
            )
    return CastModel(network.to(dtype), dtype)


@torch.no_grad()
def round_vectors(model: nn.Module) -> nn.Module:
    """Return a copy whose biases and batch norms hold bfloat16 numbers, in the dtype they had.

    These are the floating tensors of fewer than two dimensions. The arithmetic stays what it was; an
    entropy-coded file stores them in half their bytes.
    """
    check_model(model)
    rounded = copy_model(model)
    for tensor in rounded.state_dict().values():
        if tensor.ndim < 2 and tensor.is_floating_point():
            # to nearest, and the largest numbers down: they would be infinite
            limit = torch.finfo(torch.bfloat16).max
            tensor.copy_(tensor.clamp(-limit, limit).to(torch.bfloat16))
    return rounded
