"""Networks of every kind that is stored, and how two are compared; imports nothing slow."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from compression.layers import copy_model
from compression.quantization import cast, quantize_dynamic, quantize_static, quantize_weights
from compression.storage import load


class Small(nn.Module):
    """Convolution, batch norm, linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 6, 3, bias=False)
        self.norm = nn.BatchNorm2d(6)
        self.relu = nn.ReLU()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.hidden = nn.Linear(6, 20)
        self.head = nn.Linear(20, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.relu(self.norm(self.conv(x))))
        logits: Tensor = self.head(self.hidden(torch.flatten(x, 1)))
        return logits


class Pair(nn.Module):
    """Two linear layers that share their weight where `tied`."""

    def __init__(self, *, tied: bool) -> None:
        super().__init__()
        self.encoder = nn.Linear(16, 16)
        self.decoder = nn.Linear(16, 16)
        if tied:
            self.decoder.weight = self.encoder.weight


class Bag(nn.Module):
    """Any tensors: floats as parameters, the rest as buffers."""

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        super().__init__()
        for name, tensor in tensors.items():
            if tensor.is_floating_point():
                self.register_parameter(name, nn.Parameter(tensor))
            else:
                self.register_buffer(name, tensor)


def raw(tensor: Tensor) -> bytes:
    packed = tensor.detach().clone(memory_format=torch.contiguous_format).view(-1)
    return packed.view(torch.uint8).numpy().tobytes()


def digest(model: nn.Module) -> str:
    """Hash every name, dtype, shape and bit."""
    whole = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        whole.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode() + raw(tensor))
    return whole.hexdigest()


def sparse(model: nn.Module, share: float = 0.6) -> nn.Module:
    """Zero a random share of each weight of more than one dimension, by hand."""
    model = copy_model(model)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                # Not a product with the mask: -1 * 0 is -0.0, a value that the file must keep.
                parameter.masked_fill_(torch.rand(parameter.shape) < share, 0)
    return model


def odd_bits(model: nn.Module) -> nn.Module:
    """Put -0.0, subnormals and the largest number among zeros."""
    model = sparse(model, 0.9)
    weight = model.get_parameter("hidden.weight")
    bits = torch.tensor([-(2**31), 1, -(2**31) + 1, 0x7F7FFFFF], dtype=torch.int32)
    with torch.no_grad():
        weight.view(-1)[:4] = bits.view(torch.float32)
    return model


def tied() -> nn.Module:
    return Pair(tied=True)


def untied() -> nn.Module:
    return Pair(tied=False)


def golden_network() -> nn.Module:
    network = Pair(tied=False)
    network.register_buffer("sparse", torch.zeros(40))
    network.register_buffer("count", torch.zeros((), dtype=torch.int64))
    return network


IMAGES = (4, 2, 8, 8)
Factory = Callable[[], nn.Module]
# Every kind of model: what makes the float network, and what compresses it.
KINDS: dict[str, tuple[Factory, Callable[[nn.Module], nn.Module]]] = {
    "float": (Small, lambda m: m),
    "sparse": (Small, sparse),
    "odd-bits": (Small, odd_bits),
    "tied": (tied, lambda m: m),
    "untied": (untied, lambda m: m),
    "float16": (Small, lambda m: cast(m, torch.float16)),
    "bfloat16": (Small, lambda m: cast(sparse(m), torch.bfloat16)),
    "dynamic": (Small, quantize_dynamic),
    "static": (Small, lambda m: quantize_static(m, torch.randn(IMAGES))),
    "weights": (Small, lambda m: quantize_weights(m)),
    "weights-3-bit-sparse": (Small, lambda m: quantize_weights(sparse(m, 0.9), num_bits=3)),
    "weights-4-bit-groups": (Small, lambda m: quantize_weights(m, num_bits=4, group_size=5)),
}


def make(kind: str) -> nn.Module:
    factory, compress = KINDS[kind]
    torch.manual_seed(0)
    return compress(factory().eval()).eval()


def print_digests(folder: str) -> None:
    """Load each kind; run in a process of its own."""
    print(json.dumps({k: digest(load(Path(folder) / k, f)) for k, (f, _) in KINDS.items()}))
